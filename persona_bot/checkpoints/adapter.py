"""An adapter's tensors, and the base with it folded in."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from torch import nn

from persona_bot.checkpoints.files import read_json
from persona_bot.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# the whole embedding or head, trained beside the rest
EMBEDDING = re.compile(r"\.(embed_tokens|wte|tokens_embed|embed_in|lm_head|embed_out)\.weight$")
# LoRA on one of the two, or on both, each to be folded in once
ONE_SIDE = re.compile(r"\.lora_embedding_A|\.(lm_head|embed_out)\.lora_A")


def merge_adapter(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """The base with the LoRA adapter folded in, so that it costs nothing when chatting.

    Its embeddings grow first where the adapter was trained with added tokens."""
    from peft import PeftModel  # 2 s to import: only where an adapter is used

    rows = adapter_rows(folder)
    embeddings: Any = model.get_input_embeddings()
    if rows and rows != embeddings.weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    adapted = PeftModel.from_pretrained(model, folder, is_trainable=False)
    if any(ONE_SIDE.search(name) for name in shapes(folder)):
        untie(model)
    if not hasattr(adapted, "merge_and_unload"):
        kind = (read_json(folder / "adapter_config.json") or {}).get("peft_type")
        raise UserError(
            f"{folder} is an adapter of the kind {kind}, which cannot be folded into "
            "its base; use a LoRA adapter."
        )
    return adapted.merge_and_unload()


def untie(model: "PreTrainedModel") -> None:
    """Gives the head weights of its own: what is folded into one of the two would change the other as well."""
    sides: list[Any] = [model.get_output_embeddings(), model.get_input_embeddings()]
    head, embeddings = (getattr(side, "base_layer", side) for side in sides)  # without their LoRA
    if head is not None and head.weight is embeddings.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        for config in (model.config, model.config.get_text_config(decoder=True)):
            config.tie_word_embeddings = False


def adapter_rows(folder: Path) -> int | None:
    """How many tokens an adapter has embeddings for, where it says so."""
    found = [shape[1] for name, shape in shapes(folder).items() if "lora_embedding_A" in name]
    found += [shape[0] for name, shape in shapes(folder).items() if EMBEDDING.search(name)]
    return max(found, default=None)


def shapes(folder: Path) -> dict[str, list[int]]:
    """Of an adapter's tensors, by name; none where there is no adapter."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return {}
    with safe_open(file, "pt") as tensors:
        return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}
