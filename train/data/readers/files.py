"""A file, whatever it is packed or encoded in -> UTF-8 bytes, and which kind of file it is, told by its content.

json      [entries], or {"train": [entries], "valid": [entries]}
object    {entry} alone, over several lines
jsonl     an object a line
parlai    `1 your persona: i sail.` / `2 hello<TAB>ahoy !`, or `text:hello<TAB>labels:ahoy !<TAB>episode_done:False`
csv       a line of column names, then a row a line
parquet   what the Hub keeps data sets in
"""

import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import IO

from persona_bot.errors import UserError
from train.data.readers.rows import EXPECTED, is_row

HEAD = 1 << 20  # bytes that are looked at
FOREIGN = {
    b"PK\x03\x04": "a ZIP archive (or an office document); unpack it",
    b"BZh": "packed with bzip2; unpack it",
    b"\xfd7zXZ": "packed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it",
    b"\x80": "a pickle, which can run code when opened; ask for JSON",
    b"SQLite format 3": "an SQLite database; export its dialogues as JSON lines",
    b"%PDF": "a PDF; copy its dialogues into a text format",
    b"\xd0\xcf\x11\xe0": "an old office document; save its table as CSV",
    b"\xff\xff\xff\xff": "an Arrow table; save it as Parquet (Dataset.to_parquet)",
    b"ARROW1": "an Arrow table; save it as Parquet (Dataset.to_parquet)",
    b"<|": 'ChatML as a chat template writes it; write its turns as JSON, {"messages": [..]} a line',
    b"<": "a web page or XML, perhaps a login page; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS; run `git lfs pull` to get the file itself",
}
KNOWN = "JSON, JSON lines, ParlAI's text, CSV or Parquet"


def open_file(path: Path) -> tuple[str, IO[bytes]]:
    """(kind, the file as UTF-8 bytes without a mark). Raises UserError, and OSError for a file that cannot be opened."""
    kind: str | None = None
    raw = open(path, "rb")
    file: io.BufferedReader | io.BytesIO = raw
    try:
        if raw.peek(2)[:2] == b"\x1f\x8b":
            raw.close()
            file = raw = io.BufferedReader(gzip.open(path))  # which closes what it has opened
        head = raw.peek(HEAD)[:4]
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = file.read().decode("utf-16")
            file.close()
            file = io.BytesIO(text.encode())
        elif head[:3] == b"\xef\xbb\xbf":
            file.read(3)
        start = file.tell()
        kind = kind_of(file.read(HEAD), path)
        file.seek(start)
        return kind, file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); get it again.") from error
    except UnicodeError as error:
        raise UserError(f"{path} is damaged UTF-16; save it again, as UTF-8.") from error
    finally:
        if kind is None:
            file.close()


def kind_of(head: bytes, path: Path) -> str:
    """Which kind of file begins so. Raises UserError for what holds no dialogues that can be read."""
    if head.startswith(b"PAR1"):
        return "parquet"
    for magic, what in FOREIGN.items():
        if head.lstrip().startswith(magic):
            raise UserError(f"{path} is {what}, and give that.")
    if head[257:262] == b"ustar":
        raise UserError(
            f"{path} is a tar archive; unpack it, and give the file of dialogues in it."
        )
    if b"\x00" in head[:1000]:
        raise UserError(f"{path} is not text in UTF-8; save it as UTF-8, in {KNOWN}.")
    text = head.decode("utf-8", "replace")
    # not splitlines, which also cuts at U+2028 and the like within a text
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    first, second = (*lines[:2], "", "")[:2]
    if _is_whole_row(first) or (first.endswith("}") and second.startswith("{")):
        return "jsonl"
    if _is_whole_row(text.strip()):
        return "object"
    if re.match(r"\d+ \S|text:", first):
        return "parlai"
    names = dict.fromkeys(c.strip().strip('"') for c in re.split(r"[,;\t]", first))
    if is_row(names) and not first.lstrip().startswith(("[", "{")):
        return "csv"
    if not first or re.match(r"\s*([\[{]|(\".*\"|-?\d+|true|false|null)\s*$)", first):
        return "json"
    raise UserError(
        f"{path} is none of {KNOWN} with dialogues in it; a table needs a first line that names {EXPECTED}, "
        "and README.md shows what the others look like."
    )


def _is_whole_row(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return is_row(json.loads(text))
    except (ValueError, RecursionError):
        return False
