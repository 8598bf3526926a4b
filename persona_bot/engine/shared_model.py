"""Any causal transformers model with a key-value cache, on any device: one pass over the new tokens of many conversations.

transformers' own modules compute everything but attention. To them a pass is one sequence (1, N) of all new ids, without
padding, with a position and, where the model has them, a token type for each; they do not know that there are several
visitors. Attention is ours (attention.py), registered by transformers' AttentionInterface. Which models that holds for,
gate.py finds out; on a CPU it also puts int8 weights in.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from persona_bot.engine.attention import PassInputs, attend
from persona_bot.engine.kv_cache import KVSlots
from persona_bot.engine.passes import Passes, PassPlan

NAME = "shared_passes"  # of our attention, among transformers'
# what models hand to attention beside queries, keys and values and what changes nothing here
KNOWN = {"dropout", "is_causal", "position_ids", "use_cache", "cache_position", "output_attentions"}
KNOWN |= {"output_hidden_states", "output_router_logits"}


class CannotShare(Exception):
    """This model's attention is not the plain one."""


class SharedPass:
    """The pass that a thread is in. Without inputs attention stays plain and only the shapes are noted."""

    def __init__(self, inputs: PassInputs | None, max_positions: int):
        self.inputs, self.max_positions = inputs, max_positions
        self.shapes: list[tuple[int, int]] = []  # (kv_heads, head_dim) of each layer so far

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q (1, heads, N, D), k and v (1, kv_heads, N, D) -> (1, N, heads, D)."""
        if k.shape != v.shape or len(q) > 1:
            raise CannotShare("keys and values of different shapes")
        layer = len(self.shapes)
        self.shapes.append((k.shape[1], k.shape[3]))
        if self.inputs is None:
            shared = q.shape[1] != k.shape[1]
            out = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=scale, enable_gqa=shared
            )
            return out.transpose(1, 2)
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        return attend(q, k, v, layer, self.inputs, scale)[None].to(q.dtype)


CURRENT: ContextVar[SharedPass] = ContextVar("current pass")


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer. Raises CannotShare for what it does not know, instead of ignoring it."""
    current = CURRENT.get()
    unknown = sorted(k for k, value in others.items() if value is not None and k not in KNOWN)
    if unknown or attention_mask is not None or others.get("is_causal") is False:
        raise CannotShare(f"attention with {unknown or 'a mask'}")
    if sliding_window is not None and sliding_window < current.max_positions:
        raise CannotShare("a sliding window")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    return current.attend(query, key, value, scale), None


AttentionInterface.register(NAME, attention)


class GPTAttention(nn.Module):
    """openai-gpt's attention, which in transformers neither goes through the interface nor keeps keys and values."""

    def __init__(self, plain: Any):
        super().__init__()
        self.c_attn, self.c_proj, self.n_head = plain.c_attn, plain.c_proj, plain.n_head

    def forward(
        self, x: Tensor, attention_mask: Tensor | None = None, output_attentions: bool = False
    ) -> list[Tensor]:
        qkv = self.c_attn(x).unflatten(-1, (3, self.n_head, -1))  # (1, N, 3, heads, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return [self.c_proj(CURRENT.get().attend(q, k, v, q.shape[-1] ** -0.5).flatten(2))]


class SharedModel(Passes):
    """A transformers model whose attention is ours, and the pass over it."""

    def __init__(
        self,
        module: PreTrainedModel,
        layers: int,
        kv_heads: int,
        head_dim: int,
        max_positions: int,
        dtype: torch.dtype,
    ):
        """`dtype` is that of keys and values."""
        self.module, self.max_positions = module, max_positions
        embeddings: Any = module.get_input_embeddings()
        self.device = embeddings.weight.device
        self.slots = KVSlots(layers, kv_heads, head_dim, max_positions, dtype, self.device)

    def _run(self, plan: PassPlan) -> Tensor:
        def row(numbers: Sequence[int]) -> Tensor:
            return torch.tensor([numbers], device=self.device)

        inputs = {"input_ids": row(plan.ids), "position_ids": row(plan.positions)}
        if plan.token_types:
            inputs["token_type_ids"] = row(plan.token_types)
        with inside(SharedPass(plan.inputs, self.max_positions)):
            return run(self.module, inputs, row(plan.wanted)[0])


@contextmanager
def inside(current: SharedPass) -> Iterator[SharedPass]:
    token = CURRENT.set(current)
    try:
        yield current
    finally:
        CURRENT.reset(token)


def run(module: PreTrainedModel, inputs: Mapping[str, Any], wanted: Tensor) -> Tensor:
    """Logits (len(wanted), vocabulary) float32 at these positions of one sequence, without transformers' cache."""
    parameters = inspect.signature(module.forward).parameters
    if "use_cache" in parameters:
        inputs = {**inputs, "use_cache": False}
    if "logits_to_keep" in parameters:  # the vocabulary is the widest layer
        return module(**inputs, logits_to_keep=wanted).logits[0].float()
    return module(**inputs).logits[0, wanted].float()


def use_our_attention(module: PreTrainedModel) -> list[tuple[Any, nn.Module]]:
    """Puts it in; returns what was replaced by a module of ours, as (its block, the plain attention)."""
    if module.config.model_type != "openai-gpt":
        module.set_attn_implementation(NAME)
        return []
    replaced: list[tuple[Any, nn.Module]] = []
    gpt: Any = module
    for block in gpt.transformer.h:
        replaced.append((block, block.attn))
        block.attn = GPTAttention(block.attn)
    return replaced


def use_plain_attention(
    module: PreTrainedModel, replaced: list[tuple[Any, nn.Module]], name: str
) -> None:
    """Undoes `use_our_attention`; `name` is the implementation there was."""
    for block, plain in replaced:
        block.attn = plain
    if module.config.model_type != "openai-gpt":
        module.set_attn_implementation(name)
