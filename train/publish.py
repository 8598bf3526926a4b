"""Publishes a trained checkpoint on the Hugging Face Hub as one commit, and if asked a Space that chats with it.

Run: `python -m train.publish outputs/mine user/mine [--private] [--space user/mine-chat]`

The token comes from `hf auth login` or HF_TOKEN and is sent to the Hub alone. Only files that loading needs, the card and
the scores are uploaded. An upload that breaks off is tried again after looking at what the Hub already has, so that
running the command twice, or a lost answer, never makes a second commit.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    errors,
    get_token,
    set_client_factory,
)
from huggingface_hub.utils import validate_repo_id

from persona_bot.checkpoints.hub import PICKLED, WORTH_RETRYING, find_cause, has_hash
from persona_bot.errors import UserError
from train.hub.space import space_files

PAUSES = (2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each further attempt
TIMEOUT = httpx2.Timeout(20, connect=10)  # seconds of silence; the client itself would wait forever
# the last: half an answer, or a proxy's page
LOST = (httpx2.TransportError, ConnectionError, TimeoutError, json.JSONDecodeError)
MOVED = {409, 412}  # somebody else committed in between: look again
WEIGHTS = ("*.safetensors", "*.gguf")
UPLOADED = (
    *WEIGHTS,
    "model.safetensors.index.json",
    *("config.json", "generation_config.json", "adapter_config.json", "persona_layout.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"),
    *("README.md", "scores.json", "loss.png", "log.jsonl"),
)
NEVER = (
    *(f"*{ending}" for ending in PICKLED),
    "optimizer*",
    "scheduler*",
    "rng_state*",
    "trainer_state*",
)


def publish(
    folder: str | Path, repo_id: str, private: bool = False, space: str | None = None
) -> str:
    """Uploads a checkpoint folder (and the app to a Space) and returns the address to open; UserError says what to do."""
    files = checkpoint_files(Path(folder))
    check_access(repo_id)
    if space:
        check_access(space, "space")
    create(repo_id, "model", private)
    upload(repo_id, "model", files, f"Publish {Path(folder).resolve().name}")
    address = f"{constants.ENDPOINT}/{repo_id}"
    return publish_space(space, repo_id, private) if space else address


def check_access(repo_id: str, kind: str = "model") -> None:
    """Raises UserError unless the token may write to `user/name`; changes nothing on the Hub, so call it before training."""
    hub = constants.ENDPOINT
    owner = _owner(repo_id)
    set_client_factory(_client)
    if not get_token():
        raise UserError(
            f"No token for {hub} is set; run `hf auth login`, or set HF_TOKEN to a token that may write."
        )
    account = _persist(HfApi().whoami, repo_id, PAUSES[:1])
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
    _persist(lambda: _check_existing(repo_id, kind), repo_id, PAUSES[:1])


def _owner(repo_id: str) -> str:
    try:
        validate_repo_id(repo_id)
        owner, _ = repo_id.split("/")
    except (ValueError, errors.HFValidationError) as error:
        raise UserError(f"{repo_id!r} is no name on the Hub; give it as user/name.") from error
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


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """What is uploaded, by its name on the Hub; UserError for a folder that is no finished, portable checkpoint."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name the one that train.finetune wrote.")
    files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    if private := [name for name in files if any(fnmatch(name, pattern) for pattern in NEVER)]:
        some = ", ".join(private[:3])
        raise UserError(
            f"{folder} holds training state or pickles ({some}); publish the finished checkpoint, or delete them."
        )
    if not any(fnmatch(name, pattern) for name in files for pattern in WEIGHTS):
        raise UserError(
            f"{folder} is no checkpoint: it holds no *.safetensors or *.gguf file; name the folder that train.finetune wrote."
        )
    for needed in ("persona_layout.json", "README.md"):
        if needed not in files:
            raise UserError(
                f"{folder} has no {needed}, which the page and its visitors need; name a folder that train.finetune wrote."
            )
    _check_weights(folder, files)
    return {
        name: file
        for name, file in files.items()
        if any(fnmatch(name, pattern) for pattern in UPLOADED)
    }


def _check_weights(folder: Path, files: dict[str, Path]) -> None:
    for name, digest in _read_json(files["persona_layout.json"]).get("sha256", {}).items():
        if name not in files or not has_hash(files[name], digest):
            raise UserError(
                f"{folder / name} is damaged or was swapped: its sha256 is not the recorded one; train it again."
            )
    if "adapter_config.json" in files:
        base = str(_read_json(files["adapter_config.json"]).get("base_model_name_or_path"))
        try:
            validate_repo_id(base)
        except errors.HFValidationError as error:
            cure = "publish the base first and name it there as user/name"
            raise UserError(
                f"{folder}/adapter_config.json names a base that exists on this machine only; {cure}."
            ) from error


def _read_json(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not a JSON object; train the checkpoint again.") from error


def create(repo_id: str, kind: str, private: bool, **space_settings) -> None:
    """Creates the repository unless it exists; refuses to put what should be private into a public one."""
    api = HfApi()
    _persist(
        lambda: api.create_repo(
            repo_id, repo_type=kind, private=private or None, exist_ok=True, **space_settings
        ),
        repo_id,
    )
    if private and not _persist(lambda: api.repo_info(repo_id, repo_type=kind), repo_id).private:
        raise UserError(
            f"{repo_id} exists and is public; make it private in its settings on {constants.ENDPOINT}, or choose another name."
        )


def upload(repo_id: str, kind: str, files: dict[str, Path], message: str) -> None:
    """Makes the repository hold `files` in one commit, or in none when it already does."""

    def attempt():
        head = HfApi().repo_info(repo_id, repo_type=kind, files_metadata=True)
        if operations := changes(files, head.siblings):
            HfApi().create_commit(
                repo_id, operations, commit_message=message, repo_type=kind, parent_commit=head.sha
            )

    _persist(attempt, repo_id)


def changes(files: dict[str, Path], siblings: list) -> list:
    """What differs between local files and the Hub's: additions, and deletions of files that an earlier upload left."""
    remote = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in siblings}
    differ = [
        name
        for name, path in files.items()
        if name not in remote or not has_hash(path, remote[name])
    ]
    folders = {name.split("/")[0] for name in files if "/" in name}
    left = [
        name
        for name in remote
        if name not in files and (name.split("/")[0] in folders or _is_ours(name))
    ]
    additions = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in differ
    ]
    return additions + [CommitOperationDelete(path_in_repo=name) for name in left]


def _is_ours(name: str) -> bool:
    """Whether an earlier upload of ours may have left this file; GGUF conversions are added by hand and stay."""
    return (
        "/" not in name
        and not name.endswith(".gguf")
        and any(fnmatch(name, pattern) for pattern in UPLOADED)
    )


def publish_space(space: str, repo_id: str, private: bool) -> str:
    """Creates or updates a Gradio Space that runs this app on the model, and returns its address."""
    api = HfApi()
    create(
        space,
        "space",
        private,
        space_sdk="gradio",
        space_variables=[{"key": "MODEL_ID", "value": repo_id}],
    )
    variable = _persist(lambda: api.get_space_variables(space), space).get("MODEL_ID")
    if variable is None or variable.value != repo_id:
        _persist(lambda: api.add_space_variable(space, "MODEL_ID", repo_id), space)
    with tempfile.TemporaryDirectory() as folder:
        upload(space, "space", space_files(repo_id, private, Path(folder)), f"Chat with {repo_id}")
    if private:
        print(
            f"Add a secret HF_TOKEN that may read {repo_id} at {constants.ENDPOINT}/spaces/{space}/settings."
        )
    return f"{constants.ENDPOINT}/spaces/{space}"


def _client() -> httpx2.Client:
    """The client that every request goes through: no endless waits, and the token goes to no other host."""

    def guard(request):
        if constants.is_offline_mode():
            raise errors.OfflineModeIsEnabled
        # an address that the Hub gave us
        if urlsplit(str(request.url))[:2] != urlsplit(constants.ENDPOINT)[:2]:
            request.headers.pop("authorization", None)

    return httpx2.Client(event_hooks={"request": [guard]}, follow_redirects=True, timeout=TIMEOUT)


def _persist(call: Callable, repo_id: str, pauses: tuple[float, ...] | None = None):
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
    if status == 401 or find_cause(error, PermissionError):
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
    return f"The upload to {hub} failed ({type(error).__name__}); check HF_ENDPOINT and the card's front matter, then {again}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="what train.finetune wrote")
    parser.add_argument("repo", metavar="USER/NAME", help="where the model goes on the Hub")
    parser.add_argument(
        "--private", action="store_true", help="only you (and your organisation) can see it"
    )
    parser.add_argument(
        "--space", metavar="USER/NAME", help="also create or update a Space that chats with it"
    )
    options = parser.parse_args()
    try:
        address = publish(options.folder, options.repo, options.private, options.space)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"Published: {address}")


if __name__ == "__main__":
    main()
