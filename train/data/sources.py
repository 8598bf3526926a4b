"""What `--data` names -> dialogues to train on and dialogues held out.

`--data mine.json`, `personachat`, or `USER/DATASET` of the Hub (`USER/DATASET/CONFIG` where it has several); behind each
`:COUNT` takes the first so many. May be given several times.
"""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from persona_bot.errors import UserError
from train.data.dialogues import Dialogue, NoDialogues, as_text, collect, read_dialogues
from train.data.entry import Findings
from train.data.readers.files import open_file
from train.data.readers.hub import is_hub_name, read_hub

PUBLIC = "personachat"
BAD_IN_PUBLIC = 20  # entries of the public file that nobody here can mend, at most


def training_data(
    names: Sequence[str], valid_name: str | None = None, limit: int | None = None
) -> tuple[list[Dialogue], list[Dialogue]]:
    """(training, validation) dialogues. Raises UserError where nothing is left to train on.

    Without a validation part 5 % are held out; of fewer than 20 dialogues that is none, and a line says so.
    """
    train = []
    for name in names:
        train += (found := read_source(name, "train"))
        print(f"the first dialogue of {name}, as it was read:\n{as_text(found[0])}", flush=True)
    if valid_name:
        valid = read_source(valid_name, "valid")
    else:
        valid = [d for name in names for d in held_out_part(name)]
    random.Random(0).shuffle(train)
    if not valid:
        count = len(train) // 20
        train, valid = train[count:], train[:count]
    train = train[:limit]
    if not train:
        raise UserError("Nothing is left to train on; name a file with at least one dialogue.")
    if not valid:
        print(
            f"Nothing is held out of {plural(len(train), 'dialogue')}: no validation, no early stopping, no scores; "
            "--valid FILE names some to validate on."
        )
    known = set(train)
    if copies := sum(dialogue in known for dialogue in valid):
        print(
            f"{copies:,} of {plural(len(valid), 'held-out dialogue')} stand in the training data too: scores on these are better "
            "than on new ones."
        )
    return train, valid


def read_source(name: str, part: str) -> list[Dialogue]:
    """The dialogues of one `--data` value; a file or data set without parts gives all of them for any part."""
    name, count = split_count(name)
    if name == PUBLIC:
        from train.data.personachat import fetch_personachat

        return read_dialogues(fetch_personachat(), part, BAD_IN_PUBLIC)[:count]
    if not os.path.exists(name) and is_hub_name(name):
        return collect(read_hub(name, part), Findings(name), part)[:count]
    return read_dialogues(name, part)[:count]


def held_out_part(name: str) -> list[Dialogue]:
    """The validation part that a source brings itself; [] where it has none."""
    path = Path(split_count(name)[0])
    if os.path.isfile(path) and not has_parts(path):
        return []
    try:
        return read_source(name, "valid")
    except NoDialogues:
        return []


def split_count(name: str) -> tuple[str, int | None]:
    """`file.json:400` -> (file.json, 400). Raises UserError for a count of 0."""
    stem, _, count = name.rpartition(":")
    if not (stem and count.isascii() and count.isdecimal()):
        return name, None
    if not int(count):
        raise UserError(
            f"{name} takes no dialogue; write at least {stem}:1, or leave the count out."
        )
    return stem, int(count)


def has_parts(file: Path) -> bool:
    """Whether a file is JSON like `{"train": .., "valid": ..}` and not a list or lines."""
    kind, opened = open_file(file)
    with opened:
        return kind == "json" and opened.read(64).lstrip().startswith(b"{")


def plural(count: int, noun: str) -> str:
    """`1 dialogue`, `2,000 dialogues`, `2 replies`."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"
