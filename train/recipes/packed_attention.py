"""Attention conversation by conversation in a packed row: what transformers' attention interface calls under the name NAME.

    row        conversation | conversation | trunk .. branch branch | ..      (1, T) ids
    segments   (300, -1)      (212, -1)      (260, -1) (9, 31) (12, 31)       (S, 2): how long; where in its trunk a
                                                                              branch hangs, -1 for what is no branch

A branch sees its trunk up to where it hangs, and itself; nothing else is seen across segments. So a row costs the sum of
its conversations' squares, not its own square. A model has it once packed_trainer.check_model
has set it up; without `trees` in a call it is plain SDPA.
"""

import itertools
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

try:  # torch 2.10
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None  # type: ignore[assignment]  # a function where torch has one

NAME = "conversations"
# keys; beyond, their probabilities cost more memory than a processor's speed is worth
LONGEST = 1024
READ = ("input_ids", "position_ids", "token_type_ids")  # of a batch, by the model
PLAIN = {"position_ids", "use_cache", "cache_position", "output_attentions", "is_causal"}


class Tree(NamedTuple):
    """A conversation, and the branches behind it."""

    trunk: int  # positions
    branches: int  # positions of all of them
    masks: tuple[torch.Tensor, torch.Tensor | None]  # (trunk, trunk), (branches, trunk + branches)


def trees_of(segments: torch.Tensor) -> list[Tree]:
    """Segments (S, 2) -> trees, with masks that are 0 where a place may look and -inf elsewhere, on the segments' device."""
    device = segments.device
    grouped: list[tuple[int, list[tuple[int, int]]]] = []
    for length, anchor in segments.tolist():
        if anchor < 0:
            grouped.append((length, []))
        else:
            grouped[-1][1].append((length, anchor))
    longest = max(trunk for trunk, _ in grouped)
    causal = torch.full((longest, longest), -torch.inf, device=device).triu(1)
    return [
        Tree(
            trunk,
            sum(length for length, _ in branches),
            (causal[:trunk, :trunk], branch_mask(trunk, branches, device) if branches else None),
        )
        for trunk, branches in grouped
    ]


def branch_mask(trunk: int, branches: list[tuple[int, int]], device: torch.device) -> torch.Tensor:
    """(B, trunk + B) for branches of (length, place of the trunk where it hangs) that stand behind each other."""
    lengths, anchors = torch.tensor(branches, device=device).T
    branch = torch.arange(len(branches), device=device).repeat_interleave(lengths)
    in_trunk = torch.arange(trunk, device=device)[None] <= anchors[branch][:, None]
    in_branch = (branch[:, None] == branch[None]).tril()
    seen = torch.cat([in_trunk, in_branch], 1)
    return torch.zeros(seen.shape, device=device).masked_fill(~seen, -torch.inf)


def dense_mask(trees: list[Tree]) -> torch.Tensor:
    """(1, 1, T, T), True where a place may look: the same for a model with another attention."""
    masks = []
    for tree in trees:
        trunk, branches = tree.masks
        trunk = F.pad(trunk, (0, tree.branches), value=-torch.inf)
        masks.append(trunk if branches is None else torch.cat([trunk, branches]))
    return torch.block_diag(*(mask == 0 for mask in masks))[None, None]


def attend_trees(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    trees: list[Tree] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, H, T, D), key and value (1, KV heads, T, D) -> (1, T, H, D). Raises NotImplementedError for another attention."""
    if trees is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **others
        )
    if any(value is not None for name, value in others.items() if name not in PLAIN):
        raise NotImplementedError(f"attention with {', '.join(others)}")
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    with torch.autocast(kind, enabled=False):
        return _attend_all(query, key, value, trees, dropout, scaling), None


def _attend_all(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    trees: list[Tree],
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """The same, (1, T, H, D), all in one type."""
    if (
        varlen_attn is not None
        and query.is_cuda
        and query.dtype != torch.float32
        and not dropout
        and not any(tree.branches for tree in trees)
    ):
        return _attend_varlen(query, key, value, [tree.trunk for tree in trees], scaling)
    lengths = [tree.trunk + tree.branches for tree in trees]
    parts = (tensor.split(lengths, 2) for tensor in (query, key, value))
    done = []
    for tree, q, k, v in zip(trees, *parts, strict=True):
        n, (causal, branching) = tree.trunk, tree.masks
        done.append(attend(q[:, :, :n], k[:, :, :n], v[:, :, :n], causal, dropout, scaling))
        if branching is not None:
            done.append(attend(q[:, :, n:], k, v, branching, dropout, scaling))
    return torch.cat(done, 2).transpose(1, 2)


def _attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    scaling: float | None,
) -> torch.Tensor:
    """The same for conversations without branches, in flash attention's kernel for sequences of any length."""
    ends = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=query.device)
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (T, H, D)
    longest, shared = max(lengths), q.shape[1] > k.shape[1]
    attended = varlen_attn(
        q, k, v, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=shared
    )
    return cast(torch.Tensor, attended)[None]  # a pair only where return_aux asks for one


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """query (1, H, Q, D), key and value (1, KV heads, K, D), mask (Q, K) -> (1, H, Q, D)."""
    _, heads, queries, size = query.shape
    shared = heads // key.shape[1]  # query heads a KV head
    mask = mask.to(query.dtype)
    if query.device.type != "cpu" or key.shape[2] > LONGEST:
        return F.scaled_dot_product_attention(
            query, key, value, mask, dropout, scale=scaling, enable_gqa=shared > 1
        )
    # on a CPU two matrix products and a softmax take half the time of the SDPA kernel
    query = (query * (size**-0.5 if scaling is None else scaling)).reshape(
        -1, shared * queries, size
    )
    scores = (query @ key[0].mT).view(-1, shared, queries, key.shape[2])
    weights = F.dropout((scores + mask).softmax(-1), dropout)
    return (weights.flatten(1, 2) @ value[0]).view(1, heads, queries, size)


AttentionInterface.register(NAME, attend_trees)
AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_logits(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], keep: torch.Tensor
) -> torch.Tensor:
    """Logits (len(keep), vocabulary): at these positions only, because the vocabulary is the widest layer by far."""
    reads: dict[str, Any] = {name: batch[name] for name in READ if name in batch}
    if is_by_conversation(model):
        trees = trees_of(batch["segments"])
        # any mask of four axes, so that none is made
        reads |= {"trees": trees, "attention_mask": torch.ones(1, 1, 1, 1, device=keep.device)}
    elif (batch["segments"][:, 1] >= 0).any():
        reads["attention_mask"] = dense_mask(trees_of(batch["segments"]))
    return model(**reads, logits_to_keep=keep, use_cache=False).logits[0]


def is_by_conversation(model: torch.nn.Module) -> bool:
    inner: Any = getattr(model, "module", model)
    return inner.config._attn_implementation == NAME
