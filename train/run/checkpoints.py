"""Folders that are whole or not there: written under another name, hashed, put on the disk, then renamed.

outputs/.checkpoint-200.new/      being written; a later save removes what a kill left behind
outputs/checkpoint-200/           whole; manifest.json holds the sha256 of every file
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from persona_bot.checkpoints.files import LAYOUT_FILE, sha256
from persona_bot.errors import UserError

MANIFEST = "manifest.json"


def write_folder_atomically(
    target: Path,
    write: Callable[[Path], object],
    cure: str = "earlier ones are intact: free space, then --resume",
) -> None:
    """Calls `write(folder)` for a temporary sibling of `target` and renames it. Raises UserError when the disk refuses."""
    new, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        write(new)
        sums = {file.relative_to(new).as_posix(): sha256(file) for file in _files(new)}
        (new / MANIFEST).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
        _sync(new)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
        os.replace(new, target)
        _sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except UserError:
        raise
    # a full disk is an OSError of Python's, but an exception of its own in safetensors and torch
    except Exception as error:
        shutil.rmtree(new, ignore_errors=True)  # room for whoever frees some and goes on
        raise UserError(f"{target} cannot be written ({reason(error)}); {cure}.") from error


def write_files_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """The same for files in a folder that keeps other things too: each file is swapped whole, the layout marker last.

    The marker holds the sha256 of the weights, so a mixture of two saves is refused when it is loaded.
    """
    staging = target / ".model"
    write_folder_atomically(staging, write)
    try:
        (staging / MANIFEST).unlink()
        for file in sorted(
            _files(staging), key=lambda f: (f.name == LAYOUT_FILE, f.suffix == ".safetensors")
        ):
            os.replace(file, target / file.name)
        _sync_folder(target)
        shutil.rmtree(staging)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({reason(error)}); free space, then --resume."
        ) from error


def repair(folder: Path) -> None:
    """Puts back the folders that a kill left between the two renames of a swap."""
    for old in folder.glob(".*.old"):
        target = folder / old.name.removeprefix(".").removesuffix(".old")
        if not target.exists():
            os.replace(old, target)


def latest_valid(folder: Path, pattern: str = "checkpoint-*") -> Path | None:
    """The checkpoint with the highest step whose files are all there with their recorded sha256; None without one."""
    found = sorted(
        (path for path in folder.glob(pattern) if path.is_dir()), key=_step, reverse=True
    )
    return next((path for path in found if is_valid(path)), None)


def is_valid(folder: Path) -> bool:
    """Whether a folder holds exactly the files of its manifest, unchanged."""
    try:
        sums = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(sums) and all(
            sha256(folder / name) == expected for name, expected in sums.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Removes all but the `count` newest checkpoints."""
    for path in sorted(folder.glob(pattern), key=_step, reverse=True)[count:]:
        shutil.rmtree(path, ignore_errors=True)


def remove_checkpoints(out: Path) -> None:
    """Removes what only an unfinished run needs: its checkpoints, and the best weights, which the model has by then."""
    for folder in [*out.glob("checkpoint-*"), out / "best"]:
        if (
            "-epoch-" not in folder.name
        ):  # a model of its own: recipe convai's save_model_every_epoch
            shutil.rmtree(folder, ignore_errors=True)


def reason(error: Exception) -> str:
    """What an exception says, in one line: the system's words where it has some."""
    return (
        getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    )


def _step(path: Path) -> int:
    """The first number in a name: `checkpoint-200-epoch-1` is step 200."""
    number = re.search(r"\d+", path.name)
    return int(number.group()) if number else -1


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _sync(folder: Path) -> None:
    """Everything in a folder is on the disk, not only in the system's memory, when this returns."""
    for file in _files(folder):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        _sync_folder(inner)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and needs no sync of it
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
