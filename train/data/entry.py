"""One entry of Persona-Chat's own layout -> a checked dialogue; what is wrong or unusual about it is counted.

    {"personality": ["i keep bees.", "i am afraid of heights."],
     "utterances": [
        {"history": ["hello ! any hobbies ?"],                                       "candidates": ["yes , i keep bees ."]},
        {"history": ["hello ! any hobbies ?", "yes , i keep bees .", "on a roof ?"], "candidates": ["a joke .", "never , too high !"]}]}

`history` alternates partner, persona, ..., partner; `__SILENCE__` stands for a partner who has said nothing (the persona
speaks first). The last candidate is the reply really given; replies of other people may stand before it, for the ranking
head to refuse, and may be left out.

Where the persona speaks twice running, the second history ends with the persona's own turn; it is read with a
`__SILENCE__` between the two, so that every history has the same order. Any other history with an even number of turns is
counted back from the reply, as simpletransformers does: the partner said the last, so the persona began.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from persona_bot.errors import UserError
from persona_bot.layouts import INSTRUCTION, SILENCE

MAX_CHARS = 2_000  # of one sentence, turn or candidate; real data stays under 400
MAX_SENTENCES = 50  # of one persona; real data stays under 6
MAX_TURNS = 500  # of one history; real data stays under 70
MAX_CANDIDATES = 200  # of one reply; real data has 20
SHOWN = 10  # problems printed; all are counted
PERSONA_KEYS = ("personality", "persona", "personas", "system", "system_prompt")
_HALF = re.compile("[\ud800-\udfff]")  # of a character that was cut in two; no tokenizer takes one
_SENTENCE_END = re.compile(r"\n+|(?<=[.!?])\s+|(?<=[。！？।])\s*")
NOTES = {  # what is unusual and read all the same
    "no persona": "{0} without a persona: no sentences steer these replies",
    "even history": "{1} with an even number of turns: counted back from the reply, so the persona speaks first there",
    "empty utterance": "{2} without history and reply left out",
    "empty sentence": "{3} without a word left out of a persona",
    "no weight": "{4} with weight 0 learnt like any other",
}
NOUNS = ("dialogue", "history", "utterance", "sentence", "reply")


class Utterance(NamedTuple):
    """One reply of the persona. `history` has an odd number of turns: partner, persona, ..., partner."""

    history: tuple[str, ...]
    candidates: tuple[str, ...]  # the gold reply is the last


class Dialogue(NamedTuple):
    """One conversation seen from the persona's side; without a persona `personality` is empty."""

    personality: tuple[str, ...]
    utterances: tuple[Utterance, ...]


class Findings:
    """What is wrong with a source: the first few in words, all of them as a number; and what is only unusual, counted."""

    def __init__(self, source: str):
        self.source = source
        self.count = 0
        self.problems: list[tuple[str, str]] = []  # (place, what), as many as are shown
        self.notes: Counter[str] = Counter()

    def add(self, where: str, what: str) -> None:
        self.count += 1
        if len(self.problems) < SHOWN:
            self.problems.append((where, what))

    def lines(self, position: Callable[[str], str] = lambda where: "") -> list[str]:
        return [f"{self.source}: {at}{position(at)}: {what}" for at, what in self.problems]

    def raise_if_any(self, position: Callable[[str], str] = lambda where: "") -> None:
        """`position(place)` says where in the file a place is, as ` (line 3, column 5)`."""
        if self.count == 1:
            raise UserError(self.lines(position)[0])
        if self.count:
            shown = "all" if self.count <= SHOWN else f"the first {SHOWN}"
            head = f"{self.source} has {self.count:,} problems; {shown} of them:"
            raise UserError("\n".join([head, *self.lines(position)]))

    def noted(self) -> list[str]:
        """A line for each kind of thing that is unusual."""
        lines = []
        for (kind, text), noun in zip(NOTES.items(), NOUNS, strict=True):
            if count := self.notes[kind]:
                plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
                what = re.sub(r"\{\d\}", f"{count:,} {noun if count == 1 else plural}", text)
                lines.append(f"note: {self.source}: {what}.")
        return lines


def check_entry(entry: object, where: str, findings: Findings) -> Dialogue | None:
    """One entry, checked; None when something is wrong, which is then among the findings."""
    before = findings.count
    if not isinstance(entry, dict):
        findings.add(where, "is not an object with 'personality' and 'utterances'.")
        return None
    personality = _personality(entry, where, findings)
    raw_utterances = entry.get("utterances")
    if not isinstance(raw_utterances, list) or not raw_utterances:
        findings.add(where, "'utterances' must be a list with at least one utterance.")
        return None
    utterances: list[Utterance] = []
    raw_so_far: list[str] = []
    for number, raw in enumerate(raw_utterances, 1):
        place = f"{where}, utterance {number}"
        if not isinstance(raw, dict):
            findings.add(place, "is not an object with 'history' and 'candidates'.")
            continue
        if raw.get("history") == [] == raw.get("candidates"):
            findings.notes["empty utterance"] += 1
            continue
        turns = [] if raw.get("history") == [] else _texts(raw, "history", place, findings)
        candidates = _texts(raw, "candidates", place, findings)
        if turns is None or candidates is None:
            continue
        if not is_spoken(candidates[-1]):
            findings.add(place, "the gold reply (the last of 'candidates') is empty.")
        history, is_even = _partner_first(turns, raw_so_far, utterances)
        findings.notes["even history"] += is_even
        if not all(is_spoken(turn) for turn in history[1::2]):
            findings.add(place, "an empty turn of the persona in 'history'.")
        raw_so_far = [*turns, candidates[-1]]
        # an empty wrong candidate teaches nothing
        others = (text for text in candidates[:-1] if text.strip())
        utterances.append(Utterance(history, (*others, candidates[-1])))
    if findings.count > before:
        return None
    if not utterances:
        findings.add(where, "'utterances' must be a list with at least one utterance.")
        return None
    findings.notes["no persona"] += not personality
    return Dialogue(tuple(personality), tuple(utterances))


def persona_sentences(text: str) -> list[str]:
    """A persona written as one text, sentence by sentence; the chat's own system turn gives back its persona."""
    text = text.removeprefix(INSTRUCTION).strip().removeprefix("Your persona:")
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]


def is_spoken(turn: str) -> bool:
    """The public file writes silence as `__ SILENCE __`."""
    return bool(turn.strip()) and not re.fullmatch(r"__ ?SILENCE ?__", turn.strip())


def _personality(entry: dict, where: str, findings: Findings) -> list[str]:
    key = next((key for key in PERSONA_KEYS if entry.get(key) is not None), None)
    if key is None:
        return []
    value = entry[key]
    if isinstance(value, str):
        value = persona_sentences(value)
    if value in ([], [""]):
        return []
    sentences = _texts({key: value}, key, where, findings, MAX_SENTENCES)
    spoken = [sentence for sentence in sentences or [] if sentence.strip()]
    findings.notes["empty sentence"] += len(sentences or []) - len(spoken)
    return spoken


def _texts(raw: dict, key: str, where: str, findings: Findings, most: int = 0) -> list[str] | None:
    """`raw[key]` when it is a good list of strings, else None and a problem."""
    most = most or {"history": MAX_TURNS, "candidates": MAX_CANDIDATES}[key]
    value = raw.get(key)
    if not isinstance(value, list) or not value:
        findings.add(where, f"'{key}' must be a list with at least one string.")
    elif not all(isinstance(text, str) for text in value):
        findings.add(where, f"'{key}' must hold strings only.")
    elif len(value) > most:
        findings.add(where, f"'{key}' has {len(value):,} strings; at most {most} are allowed.")
    elif (longest := max(map(len, value))) > MAX_CHARS:
        findings.add(
            where,
            f"'{key}' has a string of {longest:,} characters; at most {MAX_CHARS:,} are allowed.",
        )
    else:
        return [_HALF.sub("?", text) if _HALF.search(text) else text for text in value]
    return None


def _partner_first(
    turns: list[str], raw_so_far: list[str], earlier: list[Utterance]
) -> tuple[tuple[str, ...], bool]:
    """(a history in the one order, partner, persona, ..., partner; whether it had to be counted back from the reply).

    `raw_so_far`: the history of the utterance before and its gold, as the file has them; `earlier[-1]` the same, in order.
    """
    known: tuple[str, ...] = ()
    if earlier and turns[: len(raw_so_far)] == raw_so_far:
        known = (*earlier[-1].history, earlier[-1].candidates[-1])
        turns = turns[len(raw_so_far) :] or [SILENCE]  # the persona goes on speaking
    is_even = len(turns) % 2 == 0
    if is_even:
        turns = [SILENCE, *turns]
    spoken = (t if k % 2 or is_spoken(t) else SILENCE for k, t in enumerate(turns))
    return (*known, *spoken), is_even
