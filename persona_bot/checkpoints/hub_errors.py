"""What went wrong between this machine and the Hub, as one sentence with cause and cure."""

import errno
import json
from typing import TypeVar

import httpx2
from huggingface_hub import constants, errors, get_token

from persona_bot.proxies import unusable

Kind = TypeVar("Kind", bound=BaseException)


def find_cause(
    error: BaseException | None, kind: type[Kind] | tuple[type[Kind], ...]
) -> Kind | None:
    """The error of this kind among an error and its causes (the client hides a 403 or 503 behind 'not in the cache')."""
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__
    return None


def explain(error: Exception, repo: str, revision: str = "") -> str:
    """One sentence with cause and cure for an error of the Hub's client; never any text of the error itself."""
    hub = constants.ENDPOINT
    if find_cause(error, errors.OfflineModeIsEnabled):
        return f"{repo} is not in the cache and HF_HUB_OFFLINE is set; unset it once to download, or give a folder."
    if find_cause(error, errors.GatedRepoError):
        return f"{repo} is gated; ask for access at {hub}/{repo}, then set HF_TOKEN to a token of that account."
    if find_cause(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; leave @{revision} out, or choose one listed at {hub}/{repo}."
    if answer := find_cause(error, errors.HfHubHTTPError):
        return _explain_status(answer, repo, hub)
    if told := unusable():  # the client was never made
        return told
    if find_cause(error, httpx2.TimeoutException) or find_cause(error, TimeoutError):
        return f"{hub} stopped answering; check the network and try again, or give a folder."
    if find_cause(error, httpx2.TransportError):
        return f"{hub} cannot be reached; check the network (and HTTPS_PROXY), or give a folder."
    fault = find_cause(error, OSError)
    if fault and fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full: {repo} does not fit into {constants.HF_HUB_CACHE}; free some space, or set HF_HOME to another disk."
    if fault and fault.errno:  # what the client says of an answer has none
        return f"{constants.HF_HUB_CACHE} cannot be written to ({fault.strerror}); set HF_HOME to a folder of yours."
    if find_cause(error, errors.FileMetadataError) or find_cause(error, json.JSONDecodeError):
        return f"{hub} does not answer like a Hub; check HF_ENDPOINT, the proxy and any login page of this network."
    return f"{repo} did not arrive whole from {hub} ({type(error).__name__}); try again, or give a folder."


def _explain_status(answer: errors.HfHubHTTPError, repo: str, hub: str) -> str:
    status = answer.response.status_code
    if status == 401 and answer.response.headers.get("X-Error-Message", "").startswith(
        "Invalid credentials"
    ):
        return f"{hub} does not know the token (401); make a new one at {hub}/settings/tokens and set HF_TOKEN to it."
    if status in (401, 404):
        cure = "a token that may read it" if get_token() else "your token"
        return f"{hub} has no model {repo}, or it is private ({status}); check the spelling, or set HF_TOKEN to {cure}."
    if status == 403:
        return f"{hub} denies access to {repo} (403); set HF_TOKEN to a token that may read it."
    if status == 429:
        return (
            f"{hub} receives too many requests from here (429); wait some minutes, or set HF_TOKEN."
        )
    if status >= 500:
        return f"{hub} has a fault ({status}); try again later, or give a folder."
    return f"{hub} refused to send {repo} ({status}); check the name and try again later."
