"""Persona-Chat JSON -> checked dialogues; a file of one's own has the same layout.

Run: `python -m train.dialogues FILE` checks a file and counts what is in it.

A file is a list of entries, or `{"train": [entries], "valid": [entries]}` (`train/example_dialogues.json` is one). An
entry is one conversation seen from one side, the persona's:

    {"personality": ["i keep bees.", "i am afraid of heights."],
     "utterances": [
        {"history": ["hello ! any hobbies ?"],                                       "candidates": ["yes , i keep bees ."]},
        {"history": ["hello ! any hobbies ?", "yes , i keep bees .", "on a roof ?"], "candidates": ["a joke .", "never , too high !"]}]}

`history` alternates partner, persona, ..., partner; `__SILENCE__` stands for a partner who has said nothing (the persona
speaks first). The last candidate is the reply really given; replies of other people may stand before it, for the ranking
head to refuse, and may be left out.

Where the persona speaks twice running, the second history ends with the persona's own turn; it is read with a
`__SILENCE__` between the two, so that every history has the same order. (99 of the 18,445 entries of the English
Synthetic-Persona-Chat test split come after such a turn, all with an even number of turns.) A history with an even
number of turns that no earlier entry of its dialogue explains is refused: nobody can tell who speaks.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ijson

from persona_bot.errors import UserError
from persona_bot.prompt import SILENCE

MAX_CHARS = 2_000  # of one sentence, turn or candidate; real data stays under 400
MAX_SENTENCES = 50  # of one persona; real data stays under 6
MAX_TURNS = 500  # of one history; real data stays under 70
MAX_CANDIDATES = 200  # of one reply; real data has 20
MAX_DEPTH = 8  # of nested brackets; the layout needs 6
SHOWN = 10  # problems printed; all are counted


class Utterance(NamedTuple):
    """One reply of the persona. `history` has an odd number of turns: partner, persona, ..., partner."""

    history: tuple[str, ...]
    candidates: tuple[str, ...]  # the gold reply is the last


class Dialogue(NamedTuple):
    """One conversation seen from the persona's side."""

    personality: tuple[str, ...]
    utterances: tuple[Utterance, ...]


class NoDialogues(UserError):
    """A file that can be read and has nothing for the part that was asked for."""


class _Problems:
    """What is wrong with a file: the first few in words, all of them as a number."""

    def __init__(self, file: str):
        self.file = file
        self.count = 0
        self.lines: list[str] = []

    def add(self, where: str, what: str) -> None:
        self.count += 1
        if len(self.lines) < SHOWN:
            self.lines.append(f"{self.file}: {where}: {what}")

    def raise_if_any(self) -> None:
        if self.count == 1:
            raise UserError(self.lines[0])
        if self.count:
            shown = "all" if self.count <= SHOWN else f"the first {SHOWN}"
            raise UserError(
                "\n".join(
                    [f"{self.file} has {self.count:,} problems; {shown} of them:", *self.lines]
                )
            )


def read_dialogues(path: str | Path, split: str = "train", tolerate: int = 0) -> list[Dialogue]:
    """Every dialogue of a file, checked; of a file with parts, those of the part `split`.

    Up to `tolerate` bad entries are left out with a warning (for the public file, which nobody here can mend). Else
    raises UserError with up to ten problems, one a line, as `file: entry 17, utterance 3: ...` (counted from 1).
    """
    problems = _Problems(str(path))
    dialogues: list[Dialogue] = []
    entry_number = 0
    try:
        with open(path, "rb") as file:
            for entry_number, entry in enumerate(entries(file, split), 1):
                dialogue = _dialogue(entry, f"entry {entry_number}", problems)
                if dialogue:
                    dialogues.append(dialogue)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); name a file of dialogues."
        ) from None
    # the last two: numbers and bytes that Python refuses
    except (ijson.JSONError, ValueError, ArithmeticError) as error:
        place = f"after entry {entry_number}" if entry_number else "entry 1"
        problems.add(place, f"is not valid JSON ({_reason(error)}); mend the file there.")
        tolerate = 0
    if not entry_number and not problems.count:
        raise NoDialogues(
            f'{path} holds no dialogues for {split}; expected a list of entries, or {{"{split}": [entries]}}.'
        )
    if not 0 < entry_number - len(dialogues) <= tolerate:
        problems.raise_if_any()
    for line in problems.lines:
        print(f"left out: {line}", file=sys.stderr)
    return dialogues


def conversations(dialogue: Dialogue) -> list[list[str]]:
    """The utterances merged to whole conversations: lists of turns that start with the partner's and end with a reply.

    Utterances whose history goes on from the one before share a list, also where old turns were cut off the history;
    others start a new one. A silent partner's turn is "".
    """
    merged: list[list[str]] = []
    for history, candidates in dialogue.utterances:
        new = _new_turns(merged[-1], history) if merged else None
        if new is None:
            merged.append([*history, candidates[-1]])
        else:
            merged[-1] += [*new, candidates[-1]]
    return [["" if turn == SILENCE else turn for turn in turns] for turns in merged]


def _new_turns(turns: list[str], history: tuple[str, ...]) -> tuple[str, ...] | None:
    """What a history adds to the turns so far; None when it does not go on from them."""
    if list(history[: len(turns)]) == turns and len(history) > len(turns):
        return history[len(turns) :]
    seen = len(history) - 1
    if 0 < seen < len(turns) and turns[-seen:] == list(history[:-1]):
        return history[-1:]
    return None


def entries(file, split: str) -> Iterator[object]:
    """The entries of an open file as Python objects, each as soon as it is whole; equal strings are one object.

    Built on the parser's plain events: its ready-made `items` needs memory quadratic in the depth of brackets.
    """
    if file.read(3) != b"\xef\xbb\xbf":  # the mark that Windows editors put first
        file.seek(0)
    open_, keys, shared = [], [], {}
    for event, value in ijson.basic_parse(file, use_float=True):
        if event == "map_key":
            keys[-1] = value
            continue
        if event.startswith("start_"):
            if len(open_) == MAX_DEPTH:
                raise ValueError(f"brackets nested deeper than {MAX_DEPTH}")
            open_.append({} if event == "start_map" else [])
            keys.append(None)
            continue
        if event.startswith("end_"):
            value = open_.pop()
            keys.pop()
        elif event == "string":
            value = shared.setdefault(value, value)
        # how many brackets stand around an entry
        level = 1 if open_ and isinstance(open_[0], list) else 2
        if len(open_) > level and isinstance(open_[-1], dict):
            open_[-1][keys[-1]] = value
        elif len(open_) > level:
            open_[-1].append(value)
        elif len(open_) == level and keys[0] in (None, split):
            yield value


def _dialogue(entry, where: str, problems: _Problems) -> Dialogue | None:
    """One entry, checked; None when something is wrong, which is then among the problems."""
    before = problems.count
    if not isinstance(entry, dict):
        problems.add(where, "is not an object with 'personality' and 'utterances'.")
        return None
    personality = _texts(entry, "personality", where, problems, MAX_SENTENCES)
    if not all(sentence.strip() for sentence in personality):
        problems.add(where, "an empty sentence in 'personality'.")
    raw_utterances = entry.get("utterances")
    if not isinstance(raw_utterances, list) or not raw_utterances:
        problems.add(where, "'utterances' must be a list with at least one utterance.")
        return None
    utterances: list[Utterance] = []
    raw_so_far: list[str] = []
    for number, raw in enumerate(raw_utterances, 1):
        place = f"{where}, utterance {number}"
        if not isinstance(raw, dict):
            problems.add(place, "is not an object with 'history' and 'candidates'.")
            continue
        turns = _texts(raw, "history", place, problems, MAX_TURNS)
        candidates = _texts(raw, "candidates", place, problems, MAX_CANDIDATES)
        if not turns or not candidates:
            continue
        if not _spoken(candidates[-1]):
            problems.add(place, "the gold reply (the last of 'candidates') is empty.")
        history = _partner_first(turns, raw_so_far, utterances)
        if history is None:
            problems.add(
                place,
                f"'history' has {len(turns)} turns, so the partner is not first; begin with {SILENCE} if the persona does.",
            )
            continue
        if not all(_spoken(turn) for turn in history[1::2]):
            problems.add(place, "an empty turn of the persona in 'history'.")
        raw_so_far = [*turns, candidates[-1]]
        # an empty wrong candidate teaches nothing
        others = (text for text in candidates[:-1] if text.strip())
        utterances.append(Utterance(history, (*others, candidates[-1])))
    return Dialogue(tuple(personality), tuple(utterances)) if problems.count == before else None


def _texts(raw: dict, key: str, where: str, problems: _Problems, most: int) -> list[str]:
    """`raw[key]` when it is a good list of strings, else an empty list and a problem."""
    value = raw.get(key)
    if not isinstance(value, list) or not value:
        problems.add(where, f"'{key}' must be a list with at least one string.")
    elif not all(isinstance(text, str) for text in value):
        problems.add(where, f"'{key}' must hold strings only.")
    elif len(value) > most:
        problems.add(where, f"'{key}' has {len(value):,} strings; at most {most} are allowed.")
    elif max(map(len, value)) > MAX_CHARS:
        problems.add(
            where,
            f"'{key}' has a string of {max(map(len, value)):,} characters; at most {MAX_CHARS:,} are allowed.",
        )
    else:
        return value
    return []


def _partner_first(
    turns: list[str], raw_so_far: list[str], earlier: list[Utterance]
) -> tuple[str, ...] | None:
    """A history in the one order, partner, persona, ..., partner; None when it is unclear who speaks.

    `raw_so_far`: the history of the utterance before and its gold, as the file has them; `earlier[-1]` the same, in order.
    """
    known: tuple[str, ...] = ()
    if earlier and turns[: len(raw_so_far)] == raw_so_far:
        known = (*earlier[-1].history, earlier[-1].candidates[-1])
        turns = turns[len(raw_so_far) :] or [SILENCE]  # the persona goes on speaking
    if len(turns) % 2 == 0:
        return None
    return (*known, *(turn if k % 2 or _spoken(turn) else SILENCE for k, turn in enumerate(turns)))


def _spoken(turn: str) -> bool:
    """The public file writes silence as `__ SILENCE __`."""
    return bool(turn.strip()) and not re.fullmatch(r"__ ?SILENCE ?__", turn.strip())


def _reason(error: Exception) -> str:
    """The parser's reason in a few words, without the drawing of the place under it."""
    text = str(error.args[0] if error.args else error).replace("\\n", "\n")
    return text.splitlines()[0].removeprefix("b'").strip(" .")[:80] if text else "unknown"
