"""The one class for errors that a user can cause. The page shows them as a toast; a command prints one line and exits 2."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """An error whose message is one sentence that names the cause and the cure."""

    exit_code = 2


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Around the work of a command: a UserError ends the program with its line on stderr and its code, Ctrl-C with 130."""
    try:
        yield
    except (UserError, KeyboardInterrupt) as error:
        # ends bars that were being drawn, and their line
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def reason(error: Exception) -> str:
    """What a library says in an error, as it stands in the middle of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return re.split(r"[.!?] ", first[:300])[0].rstrip(".!") or type(error).__name__
