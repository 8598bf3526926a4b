"""One training a folder: a lock that the system takes back when its process ends, however it ends."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from persona_bot.errors import UserError

LOCK, OWNER = ".training.lock", ".training.pid"


@contextlib.contextmanager
def only_training(out: Path) -> Iterator[None]:
    """While entered, no other process trains into `out`. Raises UserError, with the process's number, where one does."""
    lock, owner = FileLock(out / LOCK), out / OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        number = owner.read_text(encoding="utf-8").strip() if owner.exists() else "another number"
        raise UserError(
            f"{out} is already being trained by process {number}; wait for it, or name another folder for --out."
        ) from None
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        _sign(out, owner)
        yield
    finally:
        owner.unlink(missing_ok=True)
        (out / LOCK).unlink(missing_ok=True)
        lock.release()


def _sign(out: Path, owner: Path) -> None:
    try:
        owner.write_text(f"{os.getpid()}\n", encoding="utf-8")
    except OSError as error:  # an empty file, such as the lock, fits on a full disk
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(
        f"{out} cannot be written ({error.strerror}); free space, or name another folder for --out."
    )
