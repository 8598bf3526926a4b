"""Which transformers models may share passes: nothing is taken for granted, each is tried when it is loaded.

A model passes if it lets attention be exchanged, tells attention nothing that ours does not know, and if the same dozen ids
give the same logits in one plain pass as in several shared ones. What fails runs one visitor after the other (serial.py).
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from persona_bot.engine.int8_linear import Int8Linear
from persona_bot.engine.kv_cache import KVCache
from persona_bot.engine.passes import Part
from persona_bot.engine.shared_model import (
    CannotShare,
    SharedModel,
    SharedPass,
    inside,
    run,
    use_our_attention,
    use_plain_attention,
)

NUM_IDS = 12
SMALL = 200_000_000  # weights of a model that is tried in float32
# of the norm of the logits: what rounding may make of them
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.05}
INT8_TOLERANCE = 0.25  # of the norm again; random weights, as tests have them, lose most


def share(module: PreTrainedModel, max_positions: int, int8: bool = False) -> SharedModel | None:
    """The model as one whose passes can be shared, with int8 weights if asked for; None, and the model as it was, if it cannot."""
    config, dtype = module.config, module.dtype
    can_switch = config.model_type == "openai-gpt" or module._can_set_attn_implementation()
    # models that also see or hear keep the numbers of their text apart
    if not can_switch or forgets(config.get_text_config(decoder=True), max_positions):
        return None
    plain_name = config._attn_implementation
    replaced: list[tuple[Any, nn.Module]] = []
    try:
        with precise(module):
            ids, types = trial(module)
            expected = run(
                module, whole(module, ids, types), torch.arange(NUM_IDS).to(module.device)
            )
            replaced = use_our_attention(module)
            shape = kv_shape(module, ids, types, max_positions)
            tried = SharedModel(module, *shape, NUM_IDS, module.dtype)
            close = distance(tried, ids, types, expected) < TOLERANCE[module.dtype]
    except Exception:  # whatever a model does in another way
        close = False
    if not close:
        use_plain_attention(module, replaced, plain_name)
        return None
    shared = SharedModel(module, *shape, max_positions, dtype)
    if int8:
        quantize(shared, ids, types, expected)
    return shared


@contextmanager
def precise(module: PreTrainedModel) -> Iterator[None]:
    """In float32, where that takes little memory: rounding then hides nothing."""
    parameters = list(module.parameters())
    before = [p.data for p in parameters]
    if sum(data.numel() for data in before) <= SMALL:
        for p in parameters:
            p.data = p.data.float()
    try:
        yield
    finally:
        for p, data in zip(parameters, before, strict=True):
            p.data = data


def forgets(config: object, max_positions: int) -> bool:
    """Whether some layer sees only what is near, keeps no keys and values, or turns them otherwise once a text is long."""
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    used = getattr(config, "use_sliding_window", True)
    if any(size is not None and size < max_positions for size in sizes) and used:
        return True
    rope = getattr(config, "rope_parameters", None) or {}
    for each in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        trained = each.get("original_max_position_embeddings") or max_positions
        if each.get("rope_type") in ("dynamic", "longrope") and trained < max_positions:
            return True
    kinds = set(getattr(config, "layer_types", None) or ())
    return bool(kinds - {"full_attention", "sliding_attention"})


def trial(module: PreTrainedModel, count: int = NUM_IDS) -> tuple[list[int], list[int] | None]:
    """(ids from all over the vocabulary, token types where the model takes them)."""
    embeddings: Any = module.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    ids = [(7 + 104_729 * k) % rows for k in range(count)]
    takes_types = "token_type_ids" in inspect.signature(module.forward).parameters
    kinds = getattr(module.config, "type_vocab_size", rows)  # BERT's two; GPT's are tokens
    return ids, [ids[k % 3] % max(kinds, 1) for k in range(count)] if takes_types else None


def whole(module: PreTrainedModel, ids: list[int], types: list[int] | None) -> dict[str, Tensor]:
    inputs = {"input_ids": torch.tensor([ids], device=module.device)}
    if types:
        inputs["token_type_ids"] = torch.tensor([types], device=module.device)
    return inputs


@torch.inference_mode()
def kv_shape(
    module: PreTrainedModel, ids: list[int], types: list[int] | None, max_positions: int
) -> tuple[int, int, int]:
    """(layers, kv_heads, head_dim) as attention meets them; CannotShare if they differ, or some layer sees fewer positions."""
    with inside(SharedPass(None, max_positions)) as seen:
        run(module, whole(module, ids, types), torch.arange(1).to(module.device))
    if len(set(seen.shapes)) != 1:
        raise CannotShare("layers of different shapes, or without attention")
    return len(seen.shapes), *seen.shapes[0]


def distance(
    shared: SharedModel, ids: list[int], types: list[int] | None, expected: Tensor
) -> float:
    """How far logits are from the expected ones, (NUM_IDS, vocabulary): a prompt in two parts beside another conversation,
    then both token by token side by side."""

    def part(cache: KVCache, start: int, end: int) -> Part:
        return Part(ids[start:end], cache, types and types[start:end])

    first, second = shared.new_cache(), shared.new_cache()
    for cache in (first, second):
        shared.slots.allocate(cache, NUM_IDS)
    try:
        rows = [*shared.forward([part(first, 0, 5)], all_positions=True)]
        both = shared.forward([part(first, 5, 8), part(second, 0, 8)], all_positions=True)
        rows += [*both[:3]]
        others = [*both[3:]]
        for k in range(8, NUM_IDS):
            both = shared.forward([part(first, k, k + 1), part(second, k, k + 1)])
            rows.append(both[0])
            others.append(both[1])
    finally:
        for cache in (first, second):
            shared.slots.release(cache)
    return max(far_apart(torch.stack(found), expected) for found in (rows, others))


def far_apart(found: Tensor, expected: Tensor) -> float:
    """How far logits (n, vocabulary) are from the expected ones, as a share of their size; the worst row counts."""
    far = (found - expected).norm(dim=1) / expected.norm(dim=1).clamp_(min=1e-6)
    return far.max().item()


def quantize(
    shared: SharedModel, ids: list[int], types: list[int] | None, expected: Tensor
) -> None:
    """int8 weights in place of every linear layer of a CPU's model, if it then still says the same; else it stays as it is."""
    module = shared.module
    linears = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, Conv1D))
    }
    embeddings = [layer for layer in module.modules() if isinstance(layer, nn.Embedding)]
    handled = {id(p) for layer in [*linears.values(), *embeddings] for p in layer.parameters()}
    others = [p for p in module.parameters() if id(p) not in handled]
    if any(p.dim() > 1 for p in others):  # weights that are used in another way: experts
        return
    for name, layer in linears.items():
        weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
        put(module, name, Int8Linear(weight, layer.bias))
    before = [p.data for p in others]
    for p in others:
        p.data = p.data.float()
    hooks = [layer.register_forward_hook(as_float) for layer in embeddings]
    try:
        close = distance(shared, ids, types, expected) < INT8_TOLERANCE
    except Exception:  # something looks into its linear layers
        close = False
    if close:
        return
    for hook in hooks:
        hook.remove()
    for p, data in zip(others, before, strict=True):
        p.data = data
    for name, layer in linears.items():
        put(module, name, layer)


def put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)


def as_float(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """Embeddings stay as they are in memory; from there on a CPU computes in float32."""
    return output.float()
