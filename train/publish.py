"""Publishes a checkpoint on the Hugging Face Hub as one commit, and if asked a Space that chats with it.

Run: `python -m train.publish outputs/mine user/mine [--space user/mine-chat --persona me.txt --title "Me, at sea"]`

Any folder that the chat loads will do; what it lacks, layout file and card, is written. A LoRA adapter goes into adapter/
beside the model that holds it merged. An upload that breaks off is tried
again after looking at what the Hub already has, so that running the command twice, or a lost answer, never makes a second
commit. (huggingface_hub's upload_folder commits in several steps where hf_xet is installed, and visitors would pull half.)
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from persona_bot.checkpoints.hub import has_hash
from persona_bot.errors import UserError, exit_on_error
from persona_bot.persona import read_persona
from train.hub.access import check_access, create, persist
from train.hub.folder import (
    ADAPTER,
    UPLOADED,
    adapter_files,
    complete,
    find_files,
    with_name,
    without_private_paths,
)
from train.hub.space import SpaceSettings, space_files


def publish(
    folder: str | Path,
    repo_id: str,
    private: bool = False,
    space: str | None = None,
    *,
    adapter: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    message: str | None = None,
    settings: SpaceSettings | None = None,
) -> str:
    """Uploads a checkpoint folder (and the app to a Space) and returns the address to open; UserError says what to do.

    `adapter`: its adapter/ alone, at the top of the repository; `revision`: a branch; `tag`: names the commit afterwards.
    """
    folder = Path(folder)
    if adapter:
        folder = folder / ADAPTER
        if not (folder / "adapter_config.json").is_file():
            raise UserError(
                f"{folder.parent} has no adapter/; train with recipe sft and --lora-rank, or leave --adapter out."
            )
    find_files(folder)
    beside = adapter_files(folder)
    settings = settings or SpaceSettings()
    if settings.persona:
        read_persona(settings.persona)  # fails before anything is sent
    check_access(repo_id)
    if space:
        check_access(space, "space")
    complete(folder, repo_id)
    create(repo_id, "model", private)
    with copies_in() as copies:
        files = without_private_paths(find_files(folder) | beside, copies)
        files = with_name(files, repo_id, copies)
        if tag:
            check_tag(repo_id, tag, files)
        if revision:
            persist(lambda: HfApi().create_branch(repo_id, branch=revision, exist_ok=True), repo_id)
        message = message or f"Publish {folder.resolve().name}"
        upload(repo_id, "model", files, message, revision)
    if tag:
        persist(
            lambda: HfApi().create_tag(repo_id, tag=tag, revision=revision, exist_ok=True), repo_id
        )
    address = f"{constants.ENDPOINT}/{repo_id}"
    return publish_space(space, repo_id, private, settings) if space else address


@contextmanager
def copies_in() -> Iterator[Path]:
    """A folder for copies of what is not uploaded as it lies. Raises UserError where the disk takes none."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise UserError(
            f"What is uploaded cannot be copied ({error.strerror}); free space on the disk of {tempfile.gettempdir()}, or set "
            "TMPDIR to another one."
        ) from error


def check_tag(repo_id: str, tag: str, files: dict[str, Path]) -> None:
    """Raises UserError where the tag names other files than these already; it would stay where it is."""
    tags = persist(lambda: HfApi().list_repo_refs(repo_id), repo_id).tags
    if not any(there.name == tag for there in tags):
        return
    tagged = persist(lambda: HfApi().repo_info(repo_id, revision=tag, files_metadata=True), repo_id)
    if changes(files, tagged.siblings or []):
        raise UserError(
            f"{repo_id} has the tag {tag} already, on other files; give this version another --tag."
        )


def upload(
    repo_id: str, kind: str, files: dict[str, Path], message: str, revision: str | None = None
) -> None:
    """Makes the repository hold `files` in one commit, or in none when it already does."""

    def attempt() -> None:
        head = HfApi().repo_info(repo_id, repo_type=kind, files_metadata=True, revision=revision)
        if operations := changes(files, getattr(head, "siblings", None) or []):
            HfApi().create_commit(
                repo_id,
                operations,
                commit_message=message,
                repo_type=kind,
                revision=revision,
                parent_commit=head.sha,
            )

    persist(attempt, repo_id)


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
        if name not in files and (name.split("/")[0] in {*folders, ADAPTER} or _is_ours(name))
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


def publish_space(
    space: str, repo_id: str, private: bool, settings: SpaceSettings | None = None
) -> str:
    """Creates or updates a Gradio Space that runs this app on the model, and returns its address."""
    api, settings = HfApi(), settings or SpaceSettings()
    create(
        space,
        "space",
        private,
        space_sdk="gradio",
        space_variables=[{"key": "MODEL_ID", "value": repo_id}],
    )
    variable = persist(lambda: api.get_space_variables(space), space).get("MODEL_ID")
    if variable is None or variable.value != repo_id:
        persist(lambda: api.add_space_variable(space, "MODEL_ID", repo_id), space)
    with copies_in() as copies:
        files = space_files(repo_id, private, copies, settings)
        upload(space, "space", files, f"Chat with {repo_id}")
    if private:
        print(
            f"Add a secret HF_TOKEN that may read {repo_id} at {constants.ENDPOINT}/spaces/{space}/settings."
        )
    return f"{constants.ENDPOINT}/spaces/{space}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m train.publish", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", help="a checkpoint that the chat loads")
    parser.add_argument("repo", metavar="USER/NAME", help="where the model goes on the Hub")
    parser.add_argument(
        "--private", action="store_true", help="only you (and your organisation) can see it"
    )
    parser.add_argument(
        "--adapter", action="store_true", help="the LoRA adapter alone, and not the model with it"
    )
    parser.add_argument("--revision", metavar="BRANCH", help="a branch, made if it is new")
    parser.add_argument("--tag", help="a name for this version, as in user/name@v1")
    parser.add_argument("--message", help="what the commit says (default: Publish FOLDER)")
    group = parser.add_argument_group("a Space")
    group.add_argument(
        "--space", metavar="USER/NAME", help="also create or update a Space that chats with it"
    )
    group.add_argument(
        "--persona", type=Path, metavar="FILE", help="your persona, first in the Space's cast"
    )
    group.add_argument("--title", help="what the Space is called (default: Persona bot)")
    group.add_argument(
        "--gpu",
        action="store_true",
        help="the Space will have a GPU or ZeroGPU: torch with CUDA (default: for CPUs, 4 GB smaller)",
    )
    options = parser.parse_args(arguments)
    for flag in ("persona", "title", "gpu"):
        if getattr(options, flag) and not options.space:
            raise UserError(f"--{flag} needs --space USER/NAME, which it is about.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    with exit_on_error():
        options = parse(arguments)
        address = publish(
            options.folder,
            options.repo,
            options.private,
            options.space,
            adapter=options.adapter,
            revision=options.revision,
            tag=options.tag,
            message=options.message,
            settings=SpaceSettings(options.persona, options.title, options.gpu),
        )
    print(f"Published: {address}")


if __name__ == "__main__":
    main()
