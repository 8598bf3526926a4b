"""Conversations side by side: each sees its own keys and values, and gets what it gets alone.

Run: `python -m pytest tests/persona_bot/test_kv_cache.py`
"""

import copy

import pytest
import torch

from persona_bot.engine.kv_cache import CPU_POSITIONS, MAX_SLOTS, KVSlots
from persona_bot.engine.llama import FastLlama

# of 3 to 58 ids
PROMPTS = [[(7 * k + 3 * i) % 90 + 20 for i in range(3 + 5 * k)] for k in range(12)]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def llama(chat_model, request) -> FastLlama:
    weights = {name: tensor.to(request.param) for name, tensor in chat_model.state_dict().items()}
    return FastLlama(chat_model.config, weights, 512, int8=False)


def answer(llama: FastLlama, caches: list, count: int = 20) -> torch.Tensor:
    """Logits (conversations, count, vocabulary) of so many passes, in which each conversation gets one more token."""
    passes = [
        llama.forward([([30 + cache.length % 60], cache) for cache in caches]) for _ in range(count)
    ]
    return torch.stack(passes, dim=1)


def read(llama: FastLlama, prompt: list[int], seated: bool = True):
    cache = llama.new_cache()
    llama.forward([(prompt, cache)])
    if seated:
        llama.slots.allocate(cache, 100)
    return cache


def test_side_by_side_is_what_each_gets_alone(llama):
    alone = torch.cat([answer(llama, [read(llama, prompt, seated=False)]) for prompt in PROMPTS])
    # one has no slot
    together = answer(
        llama, [read(llama, prompt, seated=number != 3) for number, prompt in enumerate(PROMPTS)]
    )
    if llama.embedding.dtype == torch.float32:
        assert torch.allclose(together, alone, atol=1e-4)
    distances = torch.cdist(together.flatten(1), alone.flatten(1))
    # nobody's is nearer to another's
    assert distances.argmin(1).tolist() == list(range(len(PROMPTS)))
    assert distances.diagonal().max() < 0.05 * distances.fill_diagonal_(torch.inf).min()


def test_who_leaves_takes_everything_along_and_the_seat_is_free(llama):
    caches = [read(llama, prompt) for prompt in PROMPTS[:4]]
    answer(llama, caches, 5)
    before = [cache.kv[:, :, : cache.length].clone() for cache in caches]
    llama.slots.release(caches[1])
    assert (caches[1].slot, [cache.slot for cache in caches if cache.slot is not None]) == (
        None,
        [0, 2, 3],
    )
    newcomer = read(llama, PROMPTS[9])
    assert newcomer.slot == 1
    answer(llama, [newcomer], 5)
    assert all(
        torch.equal(cache.kv[:, :, : cache.length], kept)
        for cache, kept in zip(caches, before, strict=True)
    )
    # no room is left over in what is kept between turns
    assert caches[1].kv.shape[2] == caches[1].length


def test_prompts_and_single_tokens_share_a_pass(llama):
    caches = [read(llama, prompt) for prompt in PROMPTS[:3]]
    twins = [copy.deepcopy(cache) for cache in caches]
    for twin in twins:
        twin.kv, twin.slot = twin.kv.clone(), None
    parts = [[9], [11, 12, 13], [10]]
    together = llama.forward(list(zip(parts, caches, strict=True)))
    one_by_one = torch.cat([llama.forward([part]) for part in zip(parts, twins, strict=True)])
    assert torch.allclose(
        together, one_by_one, atol=1e-5 if together.dtype == llama.embedding.dtype else 0.1
    )
    assert [cache.length for cache in caches] == [cache.length for cache in twins]


def test_without_a_seat_a_conversation_is_computed_alone(llama):
    caches = [llama.new_cache() for _ in range(MAX_SLOTS + 2)]
    for cache in caches:
        llama.slots.allocate(cache, CPU_POSITIONS)
    assert [cache.slot for cache in caches] == [*range(MAX_SLOTS), None, None]
    for cache in caches:
        llama.slots.release(cache)
    llama.slots.allocate(caches[0], CPU_POSITIONS + 1)
    assert caches[0].slot is None  # too long
    llama.slots.allocate(caches[0], CPU_POSITIONS)
    assert caches[0].slot == 0


def test_slots_are_as_many_as_a_budget_holds_and_cost_nothing_until_used():
    import psutil

    def slots(heads: int, dtype: torch.dtype) -> KVSlots:
        return KVSlots(12, heads, 64, 1024, dtype, torch.device("cpu"))

    before = psutil.Process().memory_info().rss
    counts = [
        len(s.kv)
        for s in (
            slots(3, torch.bfloat16),
            slots(12, torch.bfloat16),
            slots(12, torch.float32),
            slots(999, torch.float32),
        )
    ]
    assert counts == [32, 21, 10, 1]
    assert psutil.Process().memory_info().rss - before < 10 << 20
    assert not slots(3, torch.bfloat16).kv[3, 5].any()


def test_a_released_slot_is_no_memory_and_zeros_again():
    import psutil

    slots = KVSlots(12, 3, 64, 1024, torch.bfloat16, torch.device("cpu"))
    conversations = [slots.new_cache() for _ in range(8)]
    resting = psutil.Process().memory_info().rss
    for cache in conversations:
        slots.allocate(cache, 500)
        cache.kv.fill_(1.0)
        cache.length = 1
    assert psutil.Process().memory_info().rss - resting > 8 * slots.kv[0].nbytes * 0.9
    assert slots.bytes_written == 8 * slots.kv[0].nbytes // CPU_POSITIONS
    for cache in conversations[1:]:
        slots.release(cache)
    if psutil.LINUX:
        assert psutil.Process().memory_info().rss - resting < 3 * slots.kv[0].nbytes
        assert not slots.kv[1:8].any()
    assert slots.kv[0].float().mean() == 1, "who stays keeps everything"
    assert slots.bytes_written == slots.kv[0].nbytes // CPU_POSITIONS
