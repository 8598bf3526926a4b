"""A file of dialogues, or a data set of the Hub -> checked dialogues. What a dialogue is stands in train/data/entry.py.

Run: `python -m train.dialogues FILE` checks a file and counts what is in it; `--to OUT.json` converts it.

Which reader a file needs is told by its content (train/data/readers/files.py), and packed or UTF-16 files are read as
they are. `train/example_dialogues.json` is an example of Persona-Chat's own layout, which everything is turned into.
"""

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE
from train.data.entry import Dialogue, Findings, Utterance, check_entry
from train.data.readers import files
from train.data.readers.json_text import (
    BadJson,
    error_position,
    position,
    read_json,
    read_json_lines,
)
from train.data.readers.parlai import read_parlai
from train.data.readers.rows import entries_of
from train.data.readers.tables import read_csv, read_parquet

__all__ = ["Dialogue", "Utterance", "NoDialogues", "read_dialogues", "conversations"]
MAX_LOCATED = 100_000_000  # bytes of a file in which places are looked for


class NoDialogues(UserError):
    """A source that can be read and has nothing for the part that was asked for."""


def read_dialogues(path: str | Path, split: str = "train", tolerate: int = 0) -> list[Dialogue]:
    """Every dialogue of a file, checked; of a file with parts, those of the part `split`.

    Up to `tolerate` bad entries are left out with a warning (for the public file, which nobody here can mend). Else
    raises UserError with up to ten problems, one a line, as `file: entry 17, utterance 3 (line 40, column 9): ...`.
    What is unusual and read all the same is noted on stderr.
    """
    path = Path(path)
    try:
        kind, file = files.open_file(path)
        with file:
            findings = Findings(str(path))
            return collect(_rows(kind, file, path, split, findings), findings, split, tolerate)
    except UnicodeError as error:
        raise UserError(f"{path} is not text in UTF-8; save it as UTF-8.") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); name a file of dialogues."
        ) from None


def collect(
    rows: Iterable[tuple[str, object]], findings: Findings, split: str = "train", tolerate: int = 0
) -> list[Dialogue]:
    """Checked dialogues of (place, row) pairs, as `read_dialogues` gives them."""
    dialogues: list[Dialogue] = []
    source, found = findings.source, 0
    where = partial(_position, source, split)
    try:
        for place, entry in entries_of(rows, findings):
            found += 1
            if dialogue := check_entry(entry, place, findings):
                dialogues.append(dialogue)
    except BadJson as error:
        place, reason = error.args
        findings.add(place + where(""), f"is not valid JSON ({reason}); mend the file there.")
        tolerate = 0
    if not found and not findings.count:
        raise NoDialogues(
            f'{source} holds no dialogues for {split}; expected a list of entries, or {{"{split}": [entries]}}.'
        )
    if not dialogues or not 0 < found - len(dialogues) <= tolerate:
        findings.raise_if_any(where)
    for line in findings.lines(where):
        print(f"left out: {line}", file=sys.stderr)
    for line in findings.noted():
        print(line, file=sys.stderr)
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


def as_text(dialogue: Dialogue) -> str:
    """A dialogue as it was understood, for people: the persona's sentences, then who says what."""
    lines = [f"  persona: {' | '.join(dialogue.personality) or '(none)'}"]
    for turns in conversations(dialogue):
        for number, turn in enumerate(turns):
            lines.append(f"  {'    bot' if number % 2 else 'partner'}: {turn or '(says nothing)'}")
    return "\n".join(lines)


def as_entries(dialogues: Sequence[Dialogue]) -> list[dict]:
    """Dialogues in Persona-Chat's layout, as a JSON file holds them."""
    return [
        {
            "personality": list(dialogue.personality),
            "utterances": [
                {"history": list(history), "candidates": list(candidates)}
                for history, candidates in dialogue.utterances
            ],
        }
        for dialogue in dialogues
    ]


def _rows(
    kind: str, file: IO[bytes], path: Path, split: str, findings: Findings
) -> Iterator[tuple[str, object]]:
    if kind == "json":
        return read_json(file, split)
    if kind == "parquet":
        return read_parquet(path)
    if kind == "jsonl":
        return read_json_lines(file)
    if kind == "object":
        return (("entry 1", row) for _, row in read_json_lines([file.read()]))
    return _rows_of_text(kind, file, path, findings)


def _rows_of_text(
    kind: str, file: IO[bytes], path: Path, findings: Findings
) -> Iterator[tuple[str, object]]:
    with io.TextIOWrapper(file, "utf-8", newline="" if kind == "csv" else None) as lines:
        yield from read_csv(lines, path) if kind == "csv" else read_parlai(lines, findings)


def _position(source: str, split: str, place: str) -> str:
    """Where a place (or with "" the first error) of a JSON file is; "" for other sources and huge files."""
    if place.startswith(("line", "row")) or not os.path.isfile(source):
        return ""
    try:
        kind, file = files.open_file(Path(source))
        with file:
            if kind != "json":
                return ""
            text = file.read(MAX_LOCATED).decode("utf-8")
    except (OSError, UnicodeError, UserError):
        return ""
    return position(text, split, place) if place else error_position(text)


def _new_turns(turns: list[str], history: tuple[str, ...]) -> tuple[str, ...] | None:
    """What a history adds to the turns so far; None when it does not go on from them."""
    if list(history[: len(turns)]) == turns and len(history) > len(turns):
        return history[len(turns) :]
    seen = len(history) - 1
    if 0 < seen < len(turns) and turns[-seen:] == list(history[:-1]):
        return history[-1:]
    return None
