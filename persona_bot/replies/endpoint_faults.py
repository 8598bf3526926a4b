"""What goes wrong with a server: a status, HTTP's or one of our own, and the sentence for it."""

import json
import re
import ssl

import httpx

BUSY = (429, 502, 503, 504)
# a field that the server does not know, or more turns than its model takes
NOT_ACCEPTED = (400, 413, 422)
# beside HTTP's statuses
UNREACHABLE, SILENT, BROKEN, BROKEN_EARLY, THINKING, EMPTY, WITHHELD = range(-7, 0)
STRANGE, REPORTED, NOT_TRUSTED, NO_TLS = range(-11, -7)
AGAIN = (*BUSY, UNREACHABLE, SILENT, BROKEN_EARLY)  # what may pass within seconds
# how servers say, with any status, that the conversation is too long for the model
TOO_LONG = re.compile(r"context.{0,3}(length|size|window)|too (long|many tokens)", re.IGNORECASE)

# how they say that a filter withholds what was said
FILTERED = re.compile(
    r'"(code|type)": ?"(content_filter|content_policy_violation|data_?inspection_?failed)"',
    re.IGNORECASE,
)


def told_status(status: int, told: str) -> int:
    """The status of a refusal, seen what it says: WITHHELD by a filter, 413 for too long a conversation, else as it was."""
    if FILTERED.search(told):
        return WITHHELD
    return 413 if status not in NOT_ACCEPTED and TOO_LONG.search(told) else status


class ReportedError(ValueError):
    """The server reports an error in the middle of its answer; `status` is what it names, else REPORTED."""

    def __init__(self, error: object):
        code = error.get("code") if isinstance(error, dict) else None
        status = code if type(code) is int and 400 <= code < 600 else REPORTED
        self.status = told_status(status, json.dumps(error))


def failure(error: httpx.RequestError) -> int:
    """Which of our own statuses a failed request has."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            is_shown = isinstance(cause, ssl.SSLCertVerificationError)
            return NOT_TRUSTED if is_shown else NO_TLS
        cause = cause.__cause__ or cause.__context__  # httpcore names no cause
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return UNREACHABLE
    return SILENT if isinstance(error, httpx.TimeoutException) else BROKEN_EARLY


def sentence(status: int, model: str) -> str:
    """What the visitor reads. Never the server's own words, which may repeat the request."""
    if status in (401, 403):
        return f"The model's server refuses this page ({status}); set MODEL_ENDPOINT_TOKEN to a token that it accepts."
    if status in NOT_ACCEPTED:
        return (
            f"The model's server does not accept the request ({status}) in any form that is known here; "
            "look into its log, or check --model."
        )
    known = {
        404: f"The model's server does not know {model} (404); name a model that it has with --model, or a whole route, like "
        "https://HOST/inference/chat/completions, with --endpoint.",
        429: "The model's server is busy (429); try again in a minute.",
        UNREACHABLE: "The model's server cannot be reached; start it, or correct --endpoint, and try again.",
        SILENT: "The model's server did not answer in time; try again in a moment.",
        THINKING: "The model only thought and came to no answer; choose one that does not think, or another server.",
        BROKEN: "The model's server broke off its answer; what arrived is kept, try again.",
        BROKEN_EARLY: "The model's server broke off before it answered; try again in a moment, or begin --endpoint with https:// "
        "if that is what it speaks.",
        EMPTY: "The model's server sent an answer without text; say it in other words, or choose another model with --model.",
        WITHHELD: "The model's server withholds its answer, as its rules say; say it in other words, or choose another model.",
        STRANGE: "The address answers, but not like a server of models; correct --endpoint, or log in where this network asks for it.",
        REPORTED: "The model's server reports an error instead of an answer; look into its log, and try again.",
        NOT_TRUSTED: "The certificate of the model's server is not trusted here; set SSL_CERT_FILE to a file that holds it, or correct "
        "--endpoint.",
        NO_TLS: "The model's server does not speak https at this address; begin --endpoint with http://, or correct its port.",
    }
    if status in known:
        return known[status]
    if 300 <= status < 400:
        return f"The model's server sends requests elsewhere ({status}); set --endpoint to where it really is, mostly the same with https://."
    if 400 <= status < 500 and status not in (408, 425):
        return f"The model's server refuses the request ({status}); check --endpoint, --model and the account there."
    return f"The model's server failed ({status}); try again in a moment."
