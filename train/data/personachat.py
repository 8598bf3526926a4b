"""The public Persona-Chat file (210 MB), fetched once: in pieces that a later call goes on from, checked, cached as plain JSON.

Run: `python -m train.personachat [FOLDER]` fetches it and prints where it lies (`--data personachat` does so by itself).
"""

import argparse
import contextlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import ijson
from tqdm import tqdm

from persona_bot.errors import UserError
from train.data.readers.json_text import entries

PUBLIC_URL = (
    "https://s3.amazonaws.com/datasets.huggingface.co/personachat/personachat_self_original.json"
)
COUNTS = {"train": (17_878, 131_438), "valid": (1_000, 7_801)}  # dialogues and replies of each part
TRIES = 3  # in a row without a new byte
CHUNK = 1 << 18


def default_cache() -> Path:
    """Beside the other caches of the machine: `$XDG_CACHE_HOME/persona-bot`, else `~/.cache/persona-bot`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "persona-bot"


def fetch_personachat(
    cache_dir: str | Path | None = None,
    url: str = PUBLIC_URL,
    counts: dict[str, tuple[int, int]] = COUNTS,
    deadline: float = 7200.0,
    stall: float = 15.0,
    pause: float = 1.0,
) -> Path:
    """The cached file, downloaded when it is not there yet.

    `deadline`: seconds for the whole download; `stall`: seconds without a byte before the connection is tried again;
    `pause`: seconds before that. Raises UserError; what has come so far stays and the next call goes on from it.
    """
    target = Path(cache_dir or default_cache()) / "personachat_self_original.json"
    if target.exists():
        return target
    part = target.with_suffix(".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, time.monotonic() + deadline, stall, pause)
        _check(part, counts)
        os.replace(part, target)
    except OSError as error:
        raise UserError(
            f"{target.parent} cannot hold the download ({error.strerror}); free space or choose another folder."
        ) from None
    return target


def _download(url: str, part: Path, deadline: float, stall: float, pause: float) -> None:
    """Fills `part` until it is as long as the server says, from where it ends now."""
    failures = 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(desc="Persona-Chat", unit="B", unit_scale=True, unit_divisor=1024)
        )
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                if _one_connection(url, part, before, deadline, stall, bar):
                    return
                reason = "the connection was cut"
            except urllib.error.HTTPError as error:
                if error.code not in (408, 429) and error.code < 500:
                    raise UserError(
                        f"{url} answers {error.code} ({error.reason}); download it by hand and use --data FILE."
                    ) from None
                reason = f"the server answers {error.code}"
            except _NetworkError as error:
                reason = str(error)
            after = part.stat().st_size if part.exists() else 0
            failures = 0 if after > before else failures + 1
            if failures >= TRIES or time.monotonic() > deadline:
                raise UserError(
                    f"The download stopped at {after / 1e6:,.1f} MB because {reason}; run it again, it goes on from there."
                )
            time.sleep(pause * max(failures, 1))


class _NetworkError(Exception):
    """Its text says what failed, as the end of a sentence that begins with 'because'."""


def _one_connection(
    url: str, part: Path, have: int, deadline: float, stall: float, bar: tqdm
) -> bool:
    """Reads one answer to its end; True when the file is whole then. Raises HTTPError, _NetworkError, or OSError of the disk."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=stall)
    except urllib.error.HTTPError as error:
        # asked for what lies behind the end: whole already, or another file than before
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return True
        part.unlink()
        return False
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(_reason(error)) from None
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        size = (
            int(answer.headers["Content-Length"])
            if (answer.headers.get("Content-Length") or "").isdecimal()
            else None
        )
        whole = None if size is None else size + (have if goes_on else 0)
        bar.total, bar.n = whole, have if goes_on else 0
        with open(part, "ab" if goes_on else "wb") as file:
            while True:
                if time.monotonic() > deadline:
                    raise _NetworkError("the time for it was over")
                try:
                    piece = answer.read1(CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _NetworkError(_reason(error)) from None
                if not piece:
                    break
                file.write(piece)
                bar.update(len(piece))
            file.flush()
            os.fsync(file.fileno())
    return whole is None or part.stat().st_size >= whole


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return "the server stopped answering"
    return f"the network failed ({str(inner) or type(inner).__name__})"


def _check(part: Path, counts: dict[str, tuple[int, int]]) -> None:
    """Refuses, and removes, a file that is not the one expected."""
    try:
        found = {split: _count(part, split) for split in counts}
        problem = "" if found == counts else f"it has {found} dialogues and replies, not {counts}"
    except (ijson.JSONError, ValueError, ArithmeticError, TypeError, KeyError):
        problem = "it is not whole Persona-Chat JSON"
    if problem:
        part.unlink()
        raise UserError(
            f"The downloaded Persona-Chat file was thrown away because {problem}; run the command again, or use --data FILE."
        )


def _count(path: Path, split: str) -> tuple[int, int]:
    with open(path, "rb") as file:
        lengths = [len(entry["utterances"]) for entry in entries(file, split)]
    return len(lengths), sum(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fetch the public Persona-Chat file into a cache folder."
    )
    parser.add_argument("folder", nargs="?", default=None)
    try:
        print(fetch_personachat(parser.parse_args().folder))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
