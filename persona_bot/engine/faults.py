"""What fails inside an engine, in one sentence for the visitor."""

from collections.abc import Iterator
from contextlib import contextmanager

from persona_bot.device import is_out_of_memory
from persona_bot.errors import UserError


@contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """Whatever fails inside becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise as_user_error(error) from error


def as_user_error(error: Exception) -> UserError:
    """One sentence for the visitor."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return UserError(
            "The device ran out of memory during the reply; start a new chat or shorten the persona."
        )
    return UserError("The model failed during the reply; send the message again.")
