"""What `--data` names -> dialogues to train on and dialogues held out.

`--data mine.json`, `personachat`, or `USER/DATASET` of the Hub (`USER/DATASET/CONFIG` where it has several); behind each
`:COUNT` takes the first so many. May be given several times.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from persona_bot.errors import UserError
from train.data.dialogues import Dialogue, NoDialogues, read_dialogues

PUBLIC = "personachat"
BAD_IN_PUBLIC = 20  # entries of the public file that nobody here can mend, at most


def training_data(
    names: Sequence[str], valid_name: str | None = None, limit: int | None = None
) -> tuple[list[Dialogue], list[Dialogue]]:
    """(training, validation) dialogues. Raises UserError where nothing is left to train on.

    Without a validation part 5 % are held out; of fewer than 20 dialogues that is none, and a line says so.
    """
    train = [d for name in names for d in read_source(name, "train")]
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
    return train, valid


def read_source(name: str, part: str) -> list[Dialogue]:
    """The dialogues of one `--data` value; a file or data set without parts gives all of them for any part."""
    name, count = split_count(name)
    if name == PUBLIC:
        from train.data.personachat import fetch_personachat

        return read_dialogues(fetch_personachat(), part, BAD_IN_PUBLIC)[:count]
    return read_dialogues(name, part)[:count]


def held_out_part(name: str) -> list[Dialogue]:
    """The validation part that a source brings itself; [] where it has none."""
    name, count = split_count(name)
    if name != PUBLIC and not has_parts(Path(name)):
        return []
    try:
        return read_source(name, "valid")
    except NoDialogues:
        return []


def split_count(name: str) -> tuple[str, int | None]:
    """`file.json:400` -> (file.json, 400)."""
    stem, _, count = name.rpartition(":")
    return (stem, int(count)) if stem and count.isdigit() else (name, None)


def has_parts(file: Path) -> bool:
    """Whether a file is `{"train": .., "valid": ..}` and not a plain list, by its first character."""
    with file.open("rb") as opened:
        return opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def plural(count: int, noun: str) -> str:
    """`1 dialogue`, `2,000 dialogues`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
