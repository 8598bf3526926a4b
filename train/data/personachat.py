"""The public Persona-Chat file (210 MB), fetched once: in pieces that a later call goes on from, checked, cached as plain JSON.

Run: `python -m train.data.personachat [FOLDER]` fetches it and prints where it lies (`--data personachat` does so by itself).

The dialogues are Zhang et al.'s (2018, Facebook AI Research), under CC BY 4.0 as ParlAI's task folders say: name them.
"""

import argparse
import os
import time
from pathlib import Path

import httpx
import ijson
from tqdm import tqdm

from persona_bot.errors import UserError, exit_on_error
from train.data.readers.json_text import entries

PUBLIC_URL = (
    "https://s3.amazonaws.com/datasets.huggingface.co/personachat/personachat_self_original.json"
)
COUNTS = {"train": (17_878, 131_438), "valid": (1_000, 7_801)}  # dialogues and replies of each part
TRIES = 3  # in a row without a new byte


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
    if os.path.exists(target):
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
    with tqdm(desc="Persona-Chat", unit="B", unit_scale=True, unit_divisor=1024) as bar:
        while True:
            before = _size(part)
            reason = _one_answer(url, part, before, deadline, stall, bar)
            if not reason:
                return
            failures = 0 if _size(part) > before else failures + 1
            if failures >= TRIES or time.monotonic() > deadline:
                raise UserError(
                    f"The download stopped at {_size(part) / 1e6:,.1f} MB because {reason}; run it again, it goes on from there."
                )
            time.sleep(pause * max(failures, 1))


def _one_answer(
    url: str, part: Path, have: int, deadline: float, stall: float, bar: tqdm
) -> str | None:
    """Adds what one answer brings; what broke it off, as the end of a sentence with `because`, None when the file is whole.

    Raises UserError for a refusal, and OSError of the disk.
    """
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with httpx.stream(
            "GET", url, headers=headers, timeout=stall, follow_redirects=True
        ) as answer:
            if answer.status_code == 416:  # asked for what lies behind the end
                if answer.headers.get("Content-Range") == f"bytes */{have}":
                    return None
                part.unlink()
                return "it was longer than the server's file"
            if answer.status_code in (408, 429) or answer.status_code >= 500:
                return f"the server answers {answer.status_code}"
            if answer.is_error:
                raise UserError(
                    f"{url} answers {answer.status_code} ({answer.reason_phrase}); download it by hand and use --data FILE."
                )
            return _save(answer, part, have, deadline, bar)
    except httpx.TimeoutException:
        return "the server stopped answering"
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return "the connection was cut"
    except httpx.TransportError as error:
        return f"the network failed ({str(error) or type(error).__name__})"


def _save(answer: httpx.Response, part: Path, have: int, deadline: float, bar: tqdm) -> str | None:
    """Writes the body behind what is there, or anew where the server begins anew; what broke it off, if anything."""
    goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(
        f"bytes {have}-"
    )
    length = answer.headers.get("Content-Length")
    bar.n = have if goes_on else 0
    bar.total = int(length) + bar.n if length else None
    with open(part, "ab" if goes_on else "wb") as file:
        for piece in answer.iter_raw():  # of a body that ends early httpx says so
            file.write(piece)
            bar.update(len(piece))
            if time.monotonic() > deadline:
                return "the time for it was over"
        file.flush()
        os.fsync(file.fileno())
    return None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


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
        prog="python -m train.data.personachat",
        description="Fetch the public Persona-Chat file into a cache folder.",
    )
    parser.add_argument("folder", nargs="?", default=None)
    with exit_on_error():
        print(fetch_personachat(parser.parse_args().folder))


if __name__ == "__main__":
    main()
