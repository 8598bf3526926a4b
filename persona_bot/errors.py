"""The one class for errors that a user can cause. The page shows them as a toast; a command prints one line and exits 2."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """An error whose message is one sentence that names the cause and the cure."""

    exit_code = 2


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Around the work of a command: a UserError ends the program with its line on stderr and its code."""
    try:
        yield
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
