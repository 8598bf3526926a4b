"""What the commands share: numbers that must be 1 or more, and files to write, which are looked at before the work begins."""

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path

from persona_bot.errors import UserError


def at_least_one(text: str) -> int:
    """The type of an argparse option that counts something."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text}")
    return int(text)


def check_outputs(*paths: Path | None, read: Iterable[str] = ()) -> None:
    """Opens every file that will be written, so that an hour of work is not lost for want of a folder or a right.

    What is there already stays until there is something new; what is `read`, if it is a file, always. Raises UserError
    naming the file.
    """
    taken = {os.path.realpath(name) for name in read if os.path.isfile(name)}
    for out in paths:
        if out is None:
            continue
        if not out.absolute().parent.is_dir():
            raise UserError(
                f"The folder of {out} does not exist; make it first or write somewhere else."
            )
        if os.path.realpath(out) in taken:
            raise UserError(
                f"{out} would hold two things; what is read, and each file that is written, needs a name of its own."
            )
        there = os.path.exists(out)
        try:
            out.open("a").close()
        except OSError as error:
            raise UserError(
                f"{out} cannot be written ({error.strerror}); write somewhere else."
            ) from None
        if out.is_file():  # /dev/null takes anything
            taken.add(os.path.realpath(out))
        if not there:
            out.unlink()


def holds_files(out: Path) -> bool:
    """Whether there is anything in the way of a new folder `out`; raises UserError where that cannot be seen."""
    try:
        return os.path.exists(out) and (not os.path.isdir(out) or any(out.iterdir()))
    except OSError as error:
        raise UserError(
            f"{out} cannot be read ({error.strerror}); name another folder for --out."
        ) from None


def write(path: Path, content: str) -> None:
    """Raises UserError where the disk is full or the file went away meanwhile."""
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); free space, or write somewhere else."
        ) from None


def write_dialogues(path: Path, entries: list[dict]) -> None:
    """Persona-Chat entries as a JSON list, one a line; says how many. Raises UserError."""
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    write(path, f"[\n{lines}\n]\n")
    replies = sum(len(entry["utterances"]) for entry in entries)
    print(f"{len(entries)} dialogues, {replies} replies: {path}")
