"""The Hub's client as publishing uses it: who may write where, calls that are tried again, and one sentence for each fault.

The token comes from `hf auth login` or HF_TOKEN and is sent to the Hub alone.
"""

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, errors, get_token, set_client_factory
from huggingface_hub.utils import validate_repo_id

from persona_bot.checkpoints.hub import WORTH_RETRYING
from persona_bot.checkpoints.hub_errors import find_cause
from persona_bot.errors import UserError
from persona_bot.proxies import unusable

PAUSES = (2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each further attempt
TIMEOUT = httpx2.Timeout(20, connect=10)  # seconds of silence; the client itself would wait forever
# the last: half an answer, or a proxy's page
LOST = (httpx2.TransportError, ConnectionError, TimeoutError, json.JSONDecodeError)
MOVED = {409, 412}  # somebody else committed in between: look again


def check_access(repo_id: str, kind: str = "model") -> None:
    """Raises UserError unless the token may write to `user/name`; changes nothing on the Hub, so call it before training."""
    hub = constants.ENDPOINT
    owner = _owner(repo_id)
    set_client_factory(_client)
    if not get_token():
        raise UserError(
            f"No token for {hub} is set; run `hf auth login`, or set HF_TOKEN to a token that may write."
        )
    account = persist(HfApi().whoami, repo_id, PAUSES[:1])
    access = account.get("auth", {}).get("accessToken", {})
    if access.get("role") == "read" or not _may_write(access, owner, repo_id):
        raise UserError(
            f"The token may only read {owner}; make one with write access at {hub}/settings/tokens and set HF_TOKEN to it."
        )
    groups = [
        group["name"] for group in account.get("orgs", []) if group.get("roleInOrg") != "read"
    ]
    if owner not in (account["name"], *groups):
        user, name = account["name"], repo_id.split("/")[1]
        raise UserError(
            f"{user} may not publish as {owner}; publish to {user}/{name}, or ask {owner} for write access."
        )
    persist(lambda: _check_existing(repo_id, kind), repo_id, PAUSES[:1])


def _owner(repo_id: str) -> str:
    try:
        validate_repo_id(repo_id)
        owner, _ = repo_id.split("/")
    except (ValueError, errors.HFValidationError) as error:
        cure = "; a branch goes into --revision, a version into --tag" if "@" in repo_id else ""
        raise UserError(
            f"{repo_id!r} is no name on the Hub; give it as user/name{cure}."
        ) from error
    return owner


def _may_write(access: dict, owner: str, repo_id: str) -> bool:
    """Whether a fine-grained token covers the repository; other tokens have no such list."""
    if access.get("role") != "fineGrained":
        return True
    scopes = (access.get("fineGrained") or {}).get("scoped", [])
    covering = [
        scope for scope in scopes if scope.get("entity", {}).get("name") in (owner, repo_id)
    ]
    return any("repo.write" in scope.get("permissions", []) for scope in covering)


def _check_existing(repo_id: str, kind: str) -> None:
    try:
        HfApi().auth_check(repo_id, repo_type=kind, write=True)
    except errors.RepositoryNotFoundError:
        pass  # it will be created


def create(repo_id: str, kind: str, private: bool, **space_settings: Any) -> None:
    """Creates the repository unless it exists; refuses to put what should be private into a public one."""
    api = HfApi()
    persist(
        lambda: api.create_repo(
            repo_id, repo_type=kind, private=private or None, exist_ok=True, **space_settings
        ),
        repo_id,
    )
    if private and not persist(lambda: api.repo_info(repo_id, repo_type=kind), repo_id).private:
        raise UserError(
            f"{repo_id} exists and is public; make it private in its settings on {constants.ENDPOINT}, or choose another name."
        )


def _client() -> httpx2.Client:
    """The client that every request goes through: no endless waits, and the token goes to no other host."""

    def guard(request: httpx2.Request) -> None:
        if constants.is_offline_mode():
            raise errors.OfflineModeIsEnabled
        # an address that the Hub gave us
        if urlsplit(str(request.url))[:2] != urlsplit(constants.ENDPOINT)[:2]:
            request.headers.pop("authorization", None)

    return httpx2.Client(event_hooks={"request": [guard]}, follow_redirects=True, timeout=TIMEOUT)


def persist(call: Callable, repo_id: str, pauses: tuple[float, ...] | None = None) -> Any:
    """Calls until it works; what cannot pass by itself, or does not in time, becomes a UserError."""
    for pause in (*(PAUSES if pauses is None else pauses), None):
        try:
            return call()
        except Exception as error:
            if pause is None or not _may_pass(error):
                raise UserError(explain(error, repo_id)) from error
            time.sleep(pause)


def _may_pass(error: Exception) -> bool:
    if answer := find_cause(error, errors.HfHubHTTPError):
        return answer.response.status_code in WORTH_RETRYING | MOVED
    return bool(find_cause(error, LOST)) and not find_cause(error, errors.OfflineModeIsEnabled)


def explain(error: Exception, repo_id: str) -> str:
    """One sentence with cause and cure for an error of the Hub's client; never any text of the error itself."""
    hub = constants.ENDPOINT
    again = "run the same command again, which goes on where this one stopped"
    answer = find_cause(error, errors.HfHubHTTPError)
    status = answer.response.status_code if answer else 0
    if status == 401:
        return f"{hub} does not accept the token (401); make one with write access at {hub}/settings/tokens and set HF_TOKEN to it."
    if status == 403:
        return f"{hub} does not let this token write to {repo_id} (403); use a token with write access, or choose another name."
    if status == 429:
        return f"{hub} receives too many requests from here (429); wait some minutes, then {again}."
    if status in MOVED:
        return f"{repo_id} keeps changing while we publish ({status}); wait until the other upload has ended, then {again}."
    if status >= 500:
        return f"{hub} has a fault ({status}); {again} later."
    if status:
        return f"{hub} refused the upload to {repo_id} ({status}); check the name and the card's front matter, then {again}."
    if find_cause(error, errors.OfflineModeIsEnabled):
        return "Publishing needs the network but HF_HUB_OFFLINE is set; unset it."
    if find_cause(error, LOST):
        return f"{hub} cannot be reached; check the network (and HTTPS_PROXY), then {again}."
    if told := unusable():  # the client was never made
        return told
    return f"The upload to {hub} failed ({type(error).__name__}); check HF_ENDPOINT and the card's front matter, then {again}."
