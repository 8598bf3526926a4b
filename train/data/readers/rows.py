"""Rows of other people's files and data sets -> entries of Persona-Chat's layout (train/data/entry.py).

{"personality": [..], "utterances": [..]}                      Persona-Chat: as it is
{"personality": [..], "history": [..], "candidates": [..]}     one reply a row (bavard/personachat_truecased); rows that go on are joined
{"messages": [{"role": "system", "content": ".."}, ..]}        chat models' conversations; the system turn, or a column
{"conversations": [{"from": "human", "value": ".."}, ..]}      ShareGPT's                  `persona`, becomes the persona
{"persona": "..", "chat": "hi !\\nhello .\\n.."}                 texts only, or the lines of one: partner and persona take turns
{"prompt": "..", "completion": ".."}                           one exchange: a pair of texts, or of conversations' parts (TRL's)
{"user 1 personas": "..", "user 2 personas": "..", "Best Generated Conversation": "User 1: ..\\nUser 2: .."}
                                                               google/Synthetic-Persona-Chat: two entries, one from each side
"""

import ast
import contextlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from train.data.entry import PERSONA_KEYS, Findings, is_spoken
from train.data.readers.turns import BOT, PARTNER, SYSTEM, role_and_text, turns_of, utterances_of

TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat")
REPLIES = ("candidates", "reply", "response")
PAIRS = (  # of one exchange; Alpaca's `input` goes on with its `instruction`
    *(("prompt", "completion"), ("prompt", "response"), ("instruction", "output")),
    *(("instruction", "response"), ("question", "answer"), ("input", "output")),
)
SYNTHETIC = ("user 1 personas", "user 2 personas", "best generated conversation")
MAX_WRITTEN = 100_000  # characters of a list that Python wrote; its parser takes 500 bytes for each
EXPECTED = (
    "'personality' with 'utterances' or with 'history' and 'candidates', 'messages', 'conversations', "
    "or 'prompt' and 'completion'"
)


def is_row(columns: object) -> bool:
    """Whether an object (or a table with these columns) holds a dialogue in one of the ways above."""
    if not isinstance(columns, Mapping):
        return False
    names = {str(name).lower() for name in columns}
    return bool(
        "utterances" in names
        or names & set(TURNS)
        or ("history" in names and names & set(REPLIES))
        or names >= set(SYNTHETIC)
        or any(names >= set(pair) for pair in PAIRS)
    )


def entries_of(rows: Iterable[tuple[str, Any]], findings: Findings) -> Iterator[tuple[str, object]]:
    """(place, entry) of (place, row) pairs; what cannot be turned into an entry goes to the findings, or on to their check."""
    joined: tuple[str, dict] | None = None  # rows of one reply each that go on from one another
    for where, row in rows:
        row = _lower(row)
        if is_row(row) and "history" in row and "utterances" not in row:
            if joined and _goes_on(joined[1], row):
                joined[1]["utterances"].append(_utterance(row))
                continue
            if joined:
                yield joined
            joined = (where, {**row, "utterances": [_utterance(row)]})
            continue
        if joined:
            yield joined
            joined = None
        yield from ((where, entry) for entry in _entries(row, where, findings))
    if joined:
        yield joined


def _entries(row: object, where: str, findings: Findings) -> list[object]:
    if not isinstance(row, dict) or "utterances" in row:
        return [row]
    if set(SYNTHETIC) <= row.keys():
        return _both_sides(row, where, findings)
    key = next((key for key in TURNS if key in row), None)
    if key:
        return [*_conversation(row, row[key], where, findings)]
    if pair := next((pair for pair in PAIRS if row.keys() >= set(pair)), None):
        return _exchange(row, *pair, where, findings)
    if row.keys() & {*PERSONA_KEYS, "personality"} or not row:
        return [row]  # its check says what is missing
    names = ", ".join(map(repr, sorted(map(str, row))[:6]))
    findings.add(where, f"has {names}; expected {EXPECTED}.")
    return []


def _conversation(row: dict, turns: object, where: str, findings: Findings) -> list[dict]:
    """The entry of a conversation: role and text, or texts only."""
    turns = turns_of(turns)
    if not isinstance(turns, list) or not turns:
        findings.add(where, "has an empty conversation, or none.")
        return []
    persona: list[str] = []  # system texts
    spoken: list[tuple[bool, str]] = []  # (whether the bot speaks, text)
    for number, turn in enumerate(turns, 1):
        place = f"{where}, message {number}"
        role, text = role_and_text(turn)
        if role is None or text is None:
            findings.add(
                place, "has no 'role' and 'content' (or 'from' and 'value') that are text."
            )
            return []
        if role in SYSTEM and not spoken:
            persona.append(text)
        elif role in PARTNER or role in BOT:
            if is_spoken(text):
                spoken.append((role in BOT, text))
                findings.notes["no weight"] += role in BOT and turn.get("weight") == 0
        else:
            told = "stands behind the first turn" if role in SYSTEM else "is not known"
            findings.add(
                place, f"the role {role!r} {told}; use one system turn, then user and assistant."
            )
            return []
    entry: dict = {"utterances": utterances_of(spoken)}
    if not entry["utterances"]:
        findings.add(where, "holds no reply of the assistant.")
        return []
    column = next((key for key in PERSONA_KEYS if row.get(key)), None)
    return [entry | {"personality": row[column] if column else "\n".join(persona)}]


def _exchange(row: dict, asked: str, answer: str, where: str, findings: Findings) -> list[object]:
    """The entry of what was asked and the answer: two texts, or two lists of turns of which the second's replies are learnt."""
    question, told = row[asked], row[answer]
    if asked == "instruction" and row.get("input"):
        question = f"{question}\n{row['input']}"
    turns = question if isinstance(question, list) else [{"role": "user", "content": question}]
    answers = told if isinstance(told, list) else [{"role": "assistant", "content": told}]
    learnt = sum(role_and_text(turn)[0] in BOT for turn in answers)
    if not learnt:
        findings.add(where, f"has no reply of the assistant in {answer!r}.")
        return []
    return [
        entry | {"utterances": entry["utterances"][-learnt:]}
        for entry in _conversation(row, [*turns, *answers], where, findings)
    ]


def _both_sides(row: dict, where: str, findings: Findings) -> list[object]:
    """Synthetic-Persona-Chat's text, once from each side."""
    parts = re.split(
        r"^\s*user ([12]):", str(row[SYNTHETIC[2]]), flags=re.IGNORECASE | re.MULTILINE
    )
    said = [(who, text.strip()) for who, text in zip(parts[1::2], parts[2::2], strict=True)]
    if not said:
        findings.add(where, "has no line that begins with 'User 1:'.")
        return []
    sides: list[object] = []
    for who in "21":
        utterances = utterances_of((speaker == who, text) for speaker, text in said if text)
        if utterances:
            sides.append({"personality": row[f"user {who} personas"], "utterances": utterances})
    return sides


def _utterance(row: dict) -> dict:
    """History and candidates; where a row names the reply beside them, it goes last."""
    told = [row[key] for key in REPLIES if key in row]
    listed, reply = told[0], told[-1]
    if isinstance(listed, str):
        listed = [listed]
    elif isinstance(reply, str) and isinstance(listed, list):
        listed = [*(text for text in listed if text != reply), reply]
    return {"history": _listed(row["history"]), "candidates": listed}


def _goes_on(entry: dict, row: dict) -> bool:
    """Whether a row of one reply belongs to the dialogue so far: the same conversation by number, or by its words."""
    if entry.get("conv_id") is not None or row.get("conv_id") is not None:
        return entry.get("conv_id") == row.get("conv_id")
    last, history = entry["utterances"][-1], _listed(row["history"])
    if not all(isinstance(part, list) and part for part in (*last.values(), history)):
        return False
    known = [*last["history"], last["candidates"][-1]]
    return len(history) > len(known) and history[: len(known)] == known


def _listed(value: object) -> Any:
    """A list that a table's cell holds as JSON, or as Python and so pandas writes it, is a list again."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            # numpy's ['a' 'b'] is read, too, as ['ab']: only what Python would write the same is meant so
            if len(value) <= MAX_WRITTEN and repr(found := _literal(value)) == value.strip():
                return found
    return value


def _literal(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parser's, about backslashes
        return ast.literal_eval(text.strip())


def _lower(row: object) -> Any:
    """The row with its column names in lower case and cells that are written lists as lists."""
    if not isinstance(row, dict):
        return row
    return {str(name).lower(): _listed(value) for name, value in row.items()}
