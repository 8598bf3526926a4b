"""Attention of one pass over the new tokens of many conversations: each sees its own keys and values only.

    rows of a pass       | one new | one new | a prompt of 90  | ..     (N, heads, head_dim): no padding
    keys and values      lie in slots side by side: one attention    | in memory of their own: one attention each

TorchScript compiles what is here, so types are written the way it wants them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PassInputs(NamedTuple):
    """Where the rows of a pass belong; the first rows are those of `slots`, one each, then `new_lens` rows of each other."""

    slots_kv: Tensor  # (slots, layers, 2 * kv_heads, positions, head_dim)
    slots: Tensor  # (S,)
    positions: Tensor  # (S,) of the new key in each slot
    bias: Tensor  # (highest slot + 1, 1, 1, kv_len): 0 where the row of a slot may look, else -inf
    kv: list[Tensor]  # of each other conversation (layers, 2 * kv_heads, capacity, head_dim)
    new_lens: list[int]
    kv_lens: list[int]  # after this pass
    masks: list[Tensor | None]  # (new, kv_len) or (new, new), True where a row may look
    grouped: bool  # query heads that share keys are rows of one product


def attend(q: Tensor, k: Tensor, v: Tensor, layer: int, p: PassInputs, scale: float) -> Tensor:
    """q (N, heads, D), k and v (N, kv_heads, D), which are written to the caches -> (N, heads, D) in the caches' dtype."""
    dtype, count = p.slots_kv.dtype, p.slots.shape[0]
    q, kv = q.to(dtype), torch.cat([k, v], 1).to(dtype)  # kv (N, 2 * kv_heads, D)
    seen: list[Tensor] = []
    if count > 0:
        seen.append(attend_slots(q[:count], kv[:count], layer, p, scale))
    start = count
    for i, new in enumerate(p.new_lens):
        end = start + new
        seen.append(attend_one(q[start:end], kv[start:end], layer, i, p, scale))
        start = end
    return seen[0] if len(seen) == 1 else torch.cat(seen)


def attend_slots(q: Tensor, kv: Tensor, layer: int, p: PassInputs, scale: float) -> Tensor:
    """One new position of each slot in one go, because 16 visitors times 30 layers would be 480 calls a pass."""
    cached = p.slots_kv[:, layer]  # (slots, 2 * kv_heads, positions, D)
    kv_heads = kv.shape[1] // 2
    heads = torch.arange(2 * kv_heads, device=kv.device)
    cached.index_put_([p.slots[:, None], heads[None], p.positions[:, None]], kv)
    cached = cached[: p.bias.shape[0], :, : p.bias.shape[3]]
    rows = q.new_zeros(p.bias.shape[0], q.shape[1], q.shape[2]).index_copy_(0, p.slots, q)
    out = few_rows(rows, cached[:, :kv_heads], cached[:, kv_heads:], p.bias, p.grouped, scale)
    return out.index_select(0, p.slots)


def attend_one(q: Tensor, kv: Tensor, layer: int, i: int, p: PassInputs, scale: float) -> Tensor:
    """All new positions of the i-th of the other conversations."""
    new, kv_len, mask, kv_heads = q.shape[0], p.kv_lens[i], p.masks[i], kv.shape[1] // 2
    cached = p.kv[i][layer]
    cached[:, kv_len - new : kv_len] = kv.transpose(0, 1)
    keys, values = cached[None, :kv_heads, :kv_len], cached[None, kv_heads:, :kv_len]
    if new == 1:
        return few_rows(q, keys, values, None, p.grouped, scale)
    if q.device.type != "cpu":  # kernels that take a mask there take no shared heads
        group = q.shape[1] // kv_heads
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    rows = q.transpose(0, 1)[None]  # (1, heads, new, D)
    shared = rows.shape[1] != keys.shape[1]
    out = F.scaled_dot_product_attention(
        rows, keys, values, mask, 0.0, mask is None, scale=scale, enable_gqa=shared
    )
    return out[0].transpose(0, 1)


def few_rows(
    q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, grouped: bool, scale: float
) -> Tensor:
    """One row a conversation: q (B, heads, D), keys and values (B, kv_heads, kv_len, D) -> (B, heads, D)."""
    if grouped:
        rows = q.view(q.shape[0], keys.shape[1], -1, q.shape[2])
    else:
        rows = q[:, :, None]
    shared = rows.shape[1] != keys.shape[1]
    out = F.scaled_dot_product_attention(
        rows, keys, values, bias, 0.0, False, scale=scale, enable_gqa=shared
    )
    return out.reshape(q.shape)


def prefers_groups(kv: Tensor) -> bool:
    """Whether heads that share keys are faster as rows of one product: not with AMX, but 4 times so on an AMD with bfloat16."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return kv.device.type != "cpu" or kv.dtype == torch.float32 or not has_amx
