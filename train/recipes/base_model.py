"""The base that recipe sft starts from, and the folders that it leaves: an adapter, and the model with the adapter merged."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from persona_bot.checkpoints.files import (
    check_files,
    load_model,
    read_layout_file,
    save_layout,
    save_tokenizer,
    sha256,
)
from persona_bot.checkpoints.load import explained, find_base, load_tokenizer, quiet_libraries
from persona_bot.checkpoints.prepared import load_prepared, weight_files
from persona_bot.errors import UserError
from persona_bot.layouts import CONVAI_TOKENS, Layout, find_layout
from train.recipes.sft import add_lora
from train.recipes.sft_settings import SftSettings
from train.run.checkpoints import write_files_atomically, write_folder_atomically

ADAPTER_CONFIG = "adapter_config.json"


def load_base(
    name: str, settings: SftSettings
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Layout, SftSettings]:
    """(model with a fresh adapter if one is wanted, tokenizer, layout, settings in force) for a Hub name or folder.

    A base without a chat template (GPT-2) gets the ConvAI layout's tokens; their embeddings are new, so every weight is
    trained then. Raises UserError for what cannot be trained by this recipe.
    """
    quiet_libraries()
    folder = find_base(name)
    check_files(folder)
    adapter = folder if (folder / ADAPTER_CONFIG).exists() else None
    base = find_base(base_name(name)) if adapter else folder
    with explained(name, "base model", "download it again, or name another"):
        tokenizer, model = _load(folder, base)
        if adapter:
            model, settings = _go_on(model, adapter, settings)
    if model.config.model_type == "openai-gpt":
        raise UserError(
            "openai-gpt cannot be trained on packed rows; use --recipe convai for it, or gpt2 here."
        )
    if not tokenizer.chat_template and not all(
        token in tokenizer.get_vocab() for token in CONVAI_TOKENS
    ):
        bos, eos, *speakers, pad = CONVAI_TOKENS
        tokenizer.add_special_tokens(
            {
                "bos_token": bos,
                "eos_token": eos,
                "pad_token": pad,
                "additional_special_tokens": speakers,
            }
        )
        torch.manual_seed(settings.seed)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        if settings.lora_rank:  # and the rate that was meant for LoRA
            chosen = settings.learning_rate != SftSettings().learning_rate
            settings = replace(
                settings, lora_rank=0, learning_rate=settings.learning_rate if chosen else None
            )
    marker = read_layout_file(folder)
    layout = find_layout(tokenizer, marker.get("layout"), max_turns=500)  # the history in full
    if settings.lora_rank and not adapter:
        model = add_lora(model, settings)
    return model.train(), tokenizer, layout, settings


def base_name(name: str) -> str:
    """The model below what training starts from: an adapter's base, else the model itself. Raises UserError."""
    config = find_base(name) / ADAPTER_CONFIG
    if not config.exists():
        return name
    try:
        return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{config} does not name the adapter's base model; train it again, or start from a base model."
        ) from error


def base_fingerprint(name: str) -> str:
    """The same for the same weights below what training starts from, whatever they are called and wherever they lie."""
    sums = sorted(map(sha256, weight_files(find_base(base_name(name)))))
    return hashlib.sha256(repr(sums).encode()).hexdigest()


def _load(folder: Path, base: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the dense model in float32; of a GGUF the copy that the chat keeps ready, because reading one takes long."""
    tokenizer = load_tokenizer(folder, base)
    if any(base.glob("*.safetensors")):
        return tokenizer, load_model(base)
    return tokenizer, load_prepared(base, base, find_layout(tokenizer), torch.float32)


def _go_on(model: Any, adapter: Path, settings: SftSettings) -> tuple[Any, SftSettings]:
    """The base with a saved adapter to train on, and the settings with its rank."""
    from peft import PeftModel

    model = model.to(torch.bfloat16) if settings.bf16 else model
    # in float32, like a fresh one
    model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    config = model.peft_config["default"]
    config.base_model_name_or_path = ""  # or each save asks the Hub what the base looks like
    return model, replace(
        settings, lora_rank=config.r, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout
    )


def save_trained(
    model: Any, tokenizer: PreTrainedTokenizerBase, layout: Layout, base: str, out: Path
) -> None:
    """Leaves in `out` what the page, the Hub and any chat server load: bfloat16 weights, tokenizer, layout marker.

    An adapter is also kept alone, in `adapter/`; it is rounded to bfloat16 first, so that both are the same model.
    """
    model = model.to("cpu")
    if hasattr(model, "peft_config"):
        model.peft_config["default"].base_model_name_or_path = base
        for parameter in model.parameters():
            parameter.data = (
                parameter.data.to(torch.bfloat16) if parameter.requires_grad else parameter.data
            )
        write_folder_atomically(
            out / "adapter", lambda folder: _write(model, tokenizer, layout, folder)
        )
        model = model.float().merge_and_unload()
    write_files_atomically(
        out, lambda folder: _write(model.to(torch.bfloat16), tokenizer, layout, folder)
    )


def _write(model: Any, tokenizer: PreTrainedTokenizerBase, layout: Layout, folder: Path) -> None:
    # an adapter's save would ask the Hub whether the base's vocabulary has grown; it has not, or
    # every weight is trained
    model.save_pretrained(
        folder, **({"save_embedding_layers": False} if hasattr(model, "peft_config") else {})
    )
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card
    save_tokenizer(tokenizer, folder)
    save_layout(folder, layout)
