"""A name on the Hugging Face Hub -> a local folder whose every file has the Hub's own hash.

Only safetensors, GGUF, JSON and tokenizer files are downloaded: no pickles, no code. The Hub's cache on this disk serves
when the Hub cannot. `huggingface_hub` retries a silent server for minutes and checks no hash, so both are done here.
HF_TOKEN (or `hf auth login`), HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE work as everywhere.
"""

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import httpx2
from huggingface_hub import (
    HfApi,
    ModelInfo,
    constants,
    errors,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils import tqdm as hub_bar
from huggingface_hub.utils import validate_repo_id

from persona_bot.checkpoints.gguf import choose_gguf
from persona_bot.checkpoints.hub_errors import explain, find_cause
from persona_bot.errors import UserError

PATIENCE = 60.0  # seconds without a new byte until we give up
TIMEOUT = 10.0  # seconds until one request is given up
PAUSES = (1.0, 2.0)  # seconds before the second and third attempt to list a repository
READABLE = (".safetensors", ".gguf", ".json", ".txt", ".jinja", ".model")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
WORTH_RETRYING = {408, 429, 500, 502, 503, 504}
# bytes; the client's 10 MB could take longer than PATIENCE on a slow line
constants.DOWNLOAD_CHUNK_SIZE = 1 << 16

log = logging.getLogger(__name__)
_abandoned: set[threading.Thread] = set()  # those of a Hub that did not answer any more


def fetch(name: str) -> Path:
    """The local folder of `user/name` or `user/name@revision`, downloaded and checked; UserError says why not."""
    repo, _, revision = name.partition("@")
    try:
        validate_repo_id(repo)
    except errors.HFValidationError as error:
        cure = "give a folder that exists, or user/name of a model on the Hub"
        raise UserError(f"{name!r} is neither a folder nor a name on the Hub; {cure}.") from error
    if constants.is_offline_mode():
        return _cached(repo, revision) or _refuse(errors.OfflineModeIsEnabled(), repo, revision)
    try:
        return _patiently(lambda bar: _download(repo, revision or "main", bar))
    except UserError:
        raise
    except Exception as error:
        gone = find_cause(error, errors.RevisionNotFoundError)
        folder = None if gone else _cached(repo, revision)
        if folder is None:
            _refuse(error, repo, revision)
        log.warning("%s The copy in the cache serves.", explain(error, repo, revision))
        return folder


def _refuse(error: Exception, repo: str, revision: str) -> NoReturn:
    raise UserError(explain(error, repo, revision)) from error


def _patiently(job: Callable[[Any], Path]) -> Path:
    """Runs `job(bar)` until it ends or nothing new arrived for PATIENCE seconds.

    A daemon thread, because nothing else can leave a client that hangs. An abandoned one asks for nothing more, since it
    shares the client's connections with whatever comes next.
    """

    class Bar(hub_bar):
        alive = time.monotonic()  # when the last new byte came
        # an answer that the client is waiting to try again
        trouble: errors.HfHubHTTPError | None = None
        seen = furthest = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            self.seen += n or 0  # a restart from zero counts back and is no progress
            if self.seen > self.furthest:
                self.furthest, Bar.alive, Bar.trouble = self.seen, time.monotonic(), None
            return super().update(n)

    def note(response: httpx2.Response) -> None:
        if response.status_code in WORTH_RETRYING:
            Bar.trouble = errors.HfHubHTTPError("", response=response)

    outcome: list[Path | BaseException] = []

    def work() -> None:
        try:
            outcome.append(job(Bar))
        except BaseException as error:
            outcome.append(error)

    events = get_session().event_hooks
    hooks = events["response"]
    hooks.append(note)
    if _leave not in events["request"]:
        events["request"].append(_leave)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive() and time.monotonic() - Bar.alive < PATIENCE:
        thread.join(0.05)
    hooks.remove(note)
    if thread.is_alive():
        _abandoned.add(thread)
    result = outcome[0] if outcome else Bar.trouble or TimeoutError()
    if isinstance(result, BaseException):
        raise result
    return result


def _leave(request: object) -> None:
    """Ends a thread that was abandoned, before its next request."""
    if threading.current_thread() in _abandoned:
        _abandoned.discard(threading.current_thread())
        raise SystemExit


def _download(repo: str, revision: str, bar: Any) -> Path:
    """Lists the repository, downloads file by file what is missing, checks every hash, then records the revision."""
    hub_logging.set_verbosity_error()  # one sentence at the end instead of a warning per attempt
    info = _list(repo, revision)

    def alive() -> None:
        bar.alive = time.monotonic()

    options: dict = {"revision": info.sha, "etag_timeout": TIMEOUT, "tqdm_class": bar}
    for file, digest in choose_files(info, repo).items():
        for _ in range(2):  # a copy that broke on the disk is replaced once
            path = Path(hf_hub_download(repo, file, **options))
            if has_hash(path, digest, alive):
                break
            path.resolve().unlink()
            path.unlink(missing_ok=True)
        else:
            raise UserError(
                f"{file} of {repo} arrived damaged twice: its hash is not the Hub's; try again later or from another network."
            )
        alive()
    _record(path.parent, revision, info.sha or revision)
    return path.parent


def _list(repo: str, revision: str) -> ModelInfo:
    """The Hub's description of a revision: commit, and name, size and hash of each file. Retried only without a cached copy."""
    for pause in (*PAUSES, None):
        try:
            return HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
        except Exception as error:
            if pause is None or not _passing(error) or _cached(repo, revision):
                raise
            time.sleep(pause)
    raise AssertionError("the last pause is None")


def _passing(error: Exception) -> bool:
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code in WORTH_RETRYING
    return isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)


def choose_files(info: ModelInfo, repo: str) -> dict[str, str]:
    """The files of a repository that a checkpoint needs -> their sha256, or git's sha1 for files outside LFS."""
    files = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id
        for file in info.siblings or []
        if "/" not in file.rfilename
    }
    chosen = {
        file: digest
        for file, digest in files.items()
        if file.endswith(READABLE) and not file.startswith("consolidated")
    }
    safe = any(file.endswith(".safetensors") for file in chosen)
    # such repositories hold the same weights many times over
    gguf = None if safe else choose_gguf(chosen, repo)
    for extra in [file for file in chosen if file.endswith(".gguf") and file != gguf]:
        del chosen[extra]
    if not safe and not gguf:
        if any(file.endswith(PICKLED) for file in files):
            raise UserError(
                f"{repo} has pickled weights only, which can run code when opened; download it and run `python -m train.convert FOLDER`."
            )
        raise UserError(
            f"{repo} is no checkpoint: it has no *.safetensors or *.gguf file; choose a repository that holds a model."
        )
    if not all(chosen.values()):
        raise UserError(
            f"{constants.ENDPOINT} tells no hashes for {repo}; unset HF_ENDPOINT or choose a complete mirror of the Hub."
        )
    return {file: digest for file, digest in chosen.items() if digest}


def has_hash(path: Path, digest: str, alive: Callable[[], None] = lambda: None) -> bool:
    """Whether a file has this sha256 (64 digits) or this git blob id (40 digits); `alive()` is called on the way."""
    if len(digest) == 64:
        found = hashlib.sha256()
    else:
        found = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
            alive()
    return found.hexdigest() == digest


def _record(snapshot: Path, revision: str, commit: str) -> None:
    """Notes that `revision` means this commit, in the cache's own format; only now, when every file is there and intact."""
    ref = snapshot.parent.parent / "refs" / revision
    if revision == commit or (ref.is_file() and ref.read_text() == commit):
        return
    ref.parent.mkdir(parents=True, exist_ok=True)
    temporary = ref.with_name(f"{ref.name}.{os.getpid()}")
    temporary.write_text(commit)
    temporary.replace(ref)


def _cached(repo: str, revision: str) -> Path | None:
    """The copy in the cache, whose files must have the hash that the cache names them by; None without one."""
    try:
        where: dict = {"revision": revision or None, "local_files_only": True}
        folder = Path(snapshot_download(repo, allow_patterns=["config.json"], **where))
    except errors.LocalEntryNotFoundError:
        return None
    files = [file for file in folder.iterdir() if file.name.endswith(READABLE)]
    if not any(file.name.endswith((".safetensors", ".gguf")) for file in files):
        return None
    for file in files:
        # Windows may copy; then no hash is known
        blob = os.path.basename(os.readlink(file)) if file.is_symlink() else ""
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob) and not has_hash(file, blob):
            raise UserError(
                f"{file.name} of {repo} is damaged in the cache; connect to the Hub once, or delete {folder.parent.parent}."
            )
    return folder
