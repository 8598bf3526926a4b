"""Which of several GGUF files is the model: a folder and a repository of the Hub are asked the same."""

import re
from collections.abc import Iterable
from pathlib import Path

from persona_bot.errors import UserError

# what lies beside a model: the eyes of one that sees, and how its weights were quantized
BESIDE = re.compile(r"mmproj|^imatrix|imatrix\.gguf$")
PART = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.gguf$")


def choose_gguf(names: Iterable[str], place: object) -> str | None:
    """The model's file among these names, q8_0 before others; None without one. UserError where there are parts of one only."""
    models = [n for n in names if n.endswith(".gguf") and not BESIDE.search(n.lower())]
    whole = [name for name in models if not PART.search(name)]
    if models and not whole:
        raise UserError(
            f"{place} holds a GGUF in several parts, which cannot be read; join them with `llama-gguf-split --merge`, or "
            "choose one in a single file."
        )
    return min(whole, key=lambda name: ("q8_0" not in name.lower(), name), default=None)


def gguf_file(folder: Path) -> str | None:
    """The GGUF that is read; None where there are safetensors. It needs no file beside it, and minds none."""
    if [*folder.glob("*.safetensors")]:
        return None
    return choose_gguf([file.name for file in folder.iterdir()], folder)
