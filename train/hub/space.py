"""What a Hugging Face Space that chats with a published model holds: the app, and a README that names the model."""

import shutil
import subprocess
from pathlib import Path

from huggingface_hub import SpaceCard, constants

ROOT = Path(__file__).parents[2]
APP = (
    "app.py",
    "requirements.txt",
    "constraints.txt",
    "packages.txt",
    "page",
    "persona_bot",
    "persona_presets",
)


def space_files(repo_id: str, private: bool, folder: Path) -> dict[str, Path]:
    """The files by their name in the Space; the README is written into `folder`."""
    card = folder / "README.md"
    card.write_text(space_card(repo_id, private), encoding="utf-8")
    return {**app_files(), "README.md": card}


def space_card(repo_id: str, private: bool) -> str:
    """This repository's front matter with the published model in place of the default one, and one sentence."""
    card = SpaceCard((ROOT / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True)
    card.data.models = [repo_id]
    card.data.preload_from_hub = None if private else [repo_id]  # a build has no token
    card.text = f"\nA persona chatbot that runs [{repo_id}]({constants.ENDPOINT}/{repo_id}).\n"
    return str(card)


def app_files() -> dict[str, Path]:
    """What git tracks of the app, or all of it outside a clone; without tests, training and the default model."""
    names = []
    if shutil.which("git"):
        names = subprocess.run(
            ["git", "ls-files", "--", *APP], cwd=ROOT, capture_output=True, text=True
        ).stdout.splitlines()
    if not names:
        found = [
            file
            for entry in APP
            for file in (ROOT / entry, *(ROOT / entry).rglob("*"))
            if file.is_file()
        ]
        names = [
            file.relative_to(ROOT).as_posix() for file in found if "__pycache__" not in file.parts
        ]
    return {name: ROOT / name for name in names if (ROOT / name).is_file()}
