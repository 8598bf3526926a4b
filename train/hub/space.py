"""What a Hugging Face Space that chats with a published model holds: the app, and a README that names the model."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import SpaceCard, constants

ROOT = Path(__file__).parents[2]
PRESETS = "persona_presets"
APP = ("app.py", "requirements.txt", "constraints.txt", "page", "persona_bot", PRESETS)

CPU_TORCH = "https://download.pytorch.org/whl/cpu"  # PyTorch's own index; pip prefers its 2.x+cpu


class SpaceSettings(NamedTuple):
    """What makes a Space one's own."""

    persona: Path | None = None  # a persona file that comes first in the cast
    title: str | None = None
    gpu: bool = False  # torch with CUDA; else PyTorch's build for CPUs, which is 4 GB smaller


def space_files(
    repo_id: str, private: bool, folder: Path, settings: SpaceSettings | None = None
) -> dict[str, Path]:
    """The files by their name in the Space; those that differ from this repository's are written into `folder`."""
    settings = settings or SpaceSettings()
    files = app_files()
    card = folder / "README.md"
    card.write_text(space_card(repo_id, private, settings.title), encoding="utf-8")
    files["README.md"] = card
    if settings.persona:
        # the page's cast begins with what begins with 0-
        files[f"{PRESETS}/0-{settings.persona.stem}.txt"] = settings.persona
    if not settings.gpu:
        requirements = folder / "requirements.txt"
        text = files["requirements.txt"].read_text(encoding="utf-8")
        requirements.write_text(f"--extra-index-url {CPU_TORCH}\n{text}", encoding="utf-8")
        files["requirements.txt"] = requirements
    return files


def space_card(repo_id: str, private: bool, title: str | None = None) -> str:
    """This repository's front matter with the published model in place of the default one, and one sentence."""
    card = SpaceCard((ROOT / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True)
    front: Any = card.data
    front.title = title or front.title
    front.models = [repo_id]
    front.preload_from_hub = None if private else [repo_id]  # a build has no token
    card.text = f"\nA persona chatbot that runs [{repo_id}]({constants.ENDPOINT}/{repo_id}).\n"
    return str(card)


def app_files() -> dict[str, Path]:
    """What git tracks of the app and the presets that it does not yet, or all of it outside a clone.

    Without tests, training and the default model.
    """
    names = []
    if shutil.which("git"):
        tracked = ["--", *APP]
        own = ["--others", "--exclude-standard", "--", PRESETS]
        for which in (tracked, own):
            names += subprocess.run(
                ["git", "ls-files", *which], cwd=ROOT, capture_output=True, text=True
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
