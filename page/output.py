"""What the page prints is for who may be reading; the page itself does not depend on it."""

import io
import sys
from typing import Any


class _Unheard(io.FileIO):
    """A file in which what cannot be written is lost."""

    def write(self, words: Any) -> int:
        try:
            return super().write(words)
        except OSError:
            return len(words)


def outlive_readers() -> None:
    """From now on printing raises nothing: not where the reader has gone or a disk is full, nor for a letter that cannot be shown."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # not where there is none, or a test has its own
            stream.flush()
            file = io.BufferedWriter(_Unheard(stream.fileno(), "w", closefd=False))  # type: ignore[arg-type]
            heard = io.TextIOWrapper(file, stream.encoding, "replace", line_buffering=True)
            setattr(sys, name, heard)
