"""One pass over the new tokens of many conversations: how its rows are laid out, and what every model that shares passes does.

Part              what a pass adds to one conversation
PassPlan          the rows in order, the caches they belong to (attention.PassInputs), and which of them are wanted
Passes            its heirs compute a plan: llama.FastLlama, shared_model.SharedModel
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from persona_bot.engine.attention import PassInputs, prefers_groups
from persona_bot.engine.kv_cache import KVCache, KVSlots


class Part(NamedTuple):
    """What a pass adds to one conversation."""

    ids: Sequence[int]
    cache: KVCache
    token_types: Sequence[int] | None = None  # one for each id, where the layout has them


class PassPlan(NamedTuple):
    """One pass: its rows in order, and which of them are wanted."""

    ids: list[int]
    token_types: list[int] | None
    positions: list[int]
    wanted: list[int]  # rows, in the order of the parts
    inputs: PassInputs


class Passes:
    """A model whose passes conversations share."""

    slots: KVSlots

    def _run(self, plan: PassPlan) -> Tensor:
        """Logits (len(plan.wanted), vocabulary) float32; keys and values of all rows are written to the caches."""
        raise NotImplementedError

    def new_cache(self) -> KVCache:
        return self.slots.new_cache()

    @torch.inference_mode()
    def forward(self, parts: Sequence[Part], all_positions: bool = False) -> Tensor:
        """Logits (len(parts), vocabulary) float32 after the last new id of each conversation; its cache is extended.

        With `all_positions` the logits after every new id, (N, vocabulary). If it raises, no conversation has changed.
        """
        parts = [Part(*part) for part in parts]
        logits = self._run(plan_pass(parts, self.slots, all_positions))
        for part in parts:  # what a pass wrote counts from here on
            part.cache.length += len(part.ids)
        return logits

    @torch.inference_mode()
    def forward_branches(
        self,
        branches: Sequence[Sequence[int]],
        cache: KVCache,
        token_type: int | None = None,
        hidden: Sequence[tuple[int, int]] = (),
    ) -> Tensor:
        """Logits (N, vocabulary) after every id of several branches, each behind what the cache holds and forgets them again.

        `hidden`: for each branch the cached positions (from, until) that it does not see.
        """
        return self._run(plan_branches(branches, cache, token_type, self.slots, hidden))


def plan_pass(parts: Sequence[Part], slots: KVSlots, all_positions: bool) -> PassPlan:
    """Makes room in the caches and lays out the rows; nothing counts as read before the pass went well."""
    for part in parts:
        part.cache.reserve(len(part.ids))
    in_slots = [k for k, p in enumerate(parts) if len(p.ids) == 1 and p.cache.slot is not None]
    in_slots = in_slots if len(in_slots) > 1 else []  # one alone is faster alone
    order = in_slots + [k for k in range(len(parts)) if k not in in_slots]
    alone = [parts[k] for k in order[len(in_slots) :]]
    ends, start = {}, 0
    for k in order:
        start += len(parts[k].ids)
        ends[k] = start
    wanted = [
        row
        for k, part in enumerate(parts)
        for row in range(ends[k] - (len(part.ids) if all_positions else 1), ends[k])
    ]
    device = slots.kv.device
    slot_ids = torch.tensor([parts[k].cache.slot for k in in_slots], dtype=torch.long)
    lengths = torch.tensor([parts[k].cache.length for k in in_slots], dtype=torch.long)
    inputs = PassInputs(
        slots.kv,
        slot_ids.to(device),
        lengths.to(device),
        slot_bias(slot_ids, lengths + 1, slots.kv.dtype).to(device),
        [part.cache.kv for part in alone],
        [len(part.ids) for part in alone],
        [part.cache.length + len(part.ids) for part in alone],
        [causal(part.cache.length, len(part.ids), device) for part in alone],
        prefers_groups(slots.kv),
    )
    ordered = [parts[k] for k in order]
    types = None
    if any(part.token_types for part in ordered):
        types = [kind for part in ordered for kind in part.token_types or []]
    positions = [part.cache.length + n for part in ordered for n in range(len(part.ids))]
    return PassPlan([i for part in ordered for i in part.ids], types, positions, wanted, inputs)


def plan_branches(
    branches: Sequence[Sequence[int]],
    cache: KVCache,
    token_type: int | None,
    slots: KVSlots,
    hidden: Sequence[tuple[int, int]] = (),
) -> PassPlan:
    """One pass over several continuations of what the cache holds, which see it and themselves only.

    `hidden`: for each branch the cached positions (from, until) that it does not see.
    """
    ids = [i for branch in branches for i in branch]
    cache.reserve(len(ids))
    owner = torch.tensor([number for number, branch in enumerate(branches) for _ in branch])
    mask = torch.ones(len(ids), cache.length + len(ids), dtype=torch.bool).tril(cache.length)
    mask[:, cache.length :] &= owner[:, None] == owner[None]
    for number, (start, end) in enumerate(hidden):
        mask[owner == number, start:end] = False
    empty = torch.empty(0, dtype=torch.long)
    device, kv_len = slots.kv.device, cache.length + len(ids)
    inputs = PassInputs(
        slots.kv,
        empty.to(device),
        empty.to(device),
        slot_bias(empty, empty, slots.kv.dtype).to(device),
        [cache.kv],
        [len(ids)],
        [kv_len],
        [mask.to(device)],
        prefers_groups(slots.kv),
    )
    positions = [cache.length + k for branch in branches for k in range(len(branch))]
    types = None if token_type is None else [token_type] * len(ids)
    return PassPlan(ids, types, positions, list(range(len(ids))), inputs)


def slot_bias(slots: Tensor, kv_lens: Tensor, dtype: torch.dtype) -> Tensor:
    """(highest slot + 1, 1, 1, longest): 0 for the first `kv_lens` positions of these slots, else -inf."""
    if not len(slots):
        return torch.zeros(0, 1, 1, 0, dtype=dtype)
    lengths = torch.ones(int(slots.max()) + 1, dtype=torch.long).index_copy_(0, slots, kv_lens)
    hidden = torch.arange(int(kv_lens.max())) >= lengths[:, None]
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)[:, None, None]


def causal(cached: int, new: int, device: torch.device) -> Tensor | None:
    """(new, cached + new), True where a new position may look: everything cached, and new ones up to itself. None where
    that is plain: a single new position, or nothing cached before."""
    if new == 1 or not cached:
        return None
    return torch.ones(new, cached + new, dtype=torch.bool, device=device).tril(cached)
