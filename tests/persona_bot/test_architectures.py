"""The table of equality: whatever the architecture, a reply is what whole transformers passes give, greedy, token by token.

Run: `python -m pytest tests/persona_bot/test_architectures.py`

    three turns   each the last one, its reply and some new ids; batches of 1 and of 8 in threads; cold and from the prefix cache
"""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from transformers import MptConfig

from persona_bot.engine import gate
from persona_bot.engine.batching import Engine
from persona_bot.engine.gate import share
from persona_bot.engine.int8_linear import Int8Linear, has_fast_int8
from persona_bot.engine.likelihood import score_one_by_one
from persona_bot.engine.prefix_cache import PrefixCache
from persona_bot.engine.request import Request
from persona_bot.engine.serial import SerialBackend, SerialModel
from persona_bot.engine.shared_model import SharedModel, use_our_attention
from persona_bot.prompt import Prompt
from tests.tiny_models import POSITIONS, REFUSED, SHARED, STATEFUL, VOCABULARY, build, modern

LENGTH = 7  # ids of a reply
TYPED = {"gpt2", "gpt"}  # the convai layout's models


class Greedy:
    """A sampler that takes the likeliest."""

    settings = SimpleNamespace(max_tokens=LENGTH)

    def sample(self, logits: torch.Tensor, ids: list[int]) -> int:
        return int(logits.argmax())

    def is_last(self, ids: list[int]) -> bool:
        return len(ids) >= LENGTH


def some_ids(seed: int, count: int) -> list[int]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (count,), generator=draw).tolist()


def types_of(ids: list[int]) -> list[int]:
    return [5 + k // 9 % 2 for k in range(len(ids))]


def whole(model, ids: list[int], types: list[int] | None) -> torch.Tensor:
    """Logits (len(ids), vocabulary) of one plain pass."""
    inputs = {"input_ids": torch.tensor([ids])}
    if types:
        inputs["token_type_ids"] = torch.tensor([types])
    return model(**inputs).logits[0]


def assert_greedy(model, prompt: list[int], reply: list[int], types: list[int] | None) -> None:
    ids = prompt + reply
    types = types and types + [types[-1]] * len(reply)
    assert whole(model, ids, types)[len(prompt) - 1 : -1].argmax(-1).tolist() == reply


@pytest.mark.parametrize("name", SHARED)
def test_replies_of_shared_passes_are_those_of_whole_ones(name):
    plain, shared = build(SHARED[name]), share(build(SHARED[name]), POSITIONS)
    assert shared is not None
    engine, prefixes = Engine(shared), PrefixCache()

    def converse(number: int, warm: bool) -> None:
        ids = some_ids(number, 9 + 5 * number)
        types = types_of(ids) if name in TYPED else None
        for turn in range(3):
            engine.reap_finished()
            known = prefixes if warm else PrefixCache()
            cache, count = known.take(ids, shared.new_cache)
            assert count == 0 or (warm and turn > 0)
            reply = list(
                engine.tokens(Request(ids, count, cache, Greedy(), known.give_back, types))
            )
            assert_greedy(plain, ids, reply, types)
            ids = ids + reply + some_ids(100 * turn + number, 6)
            types = types and [*types, *[types[-1]] * LENGTH, 5, 5, 5, 5, 5, 6]

    for warm in (False, True):
        converse(0, warm)
    for warm in (False, True):
        prefixes.clear()
        before = engine.passes
        with ThreadPoolExecutor(8) as visitors:
            list(visitors.map(lambda number, warm=warm: converse(number, warm), range(1, 9)))
        assert engine.passes - before < 8 * 3 * LENGTH  # they did share


@pytest.mark.parametrize("name", SHARED)
def test_scores_behind_a_prompt_are_those_of_whole_passes(name):
    plain, shared = build(SHARED[name]), share(build(SHARED[name]), POSITIONS)
    prompt, branches = some_ids(1, 20), [some_ids(2, 5), [], some_ids(3, 9)]
    types = types_of(prompt) if name in TYPED else None
    cache = shared.new_cache()
    shared.forward([(prompt, cache, types)])
    found = shared.forward_branches(branches, cache, types and types[-1])
    expected = [
        whole(plain, prompt + branch, types and types + [types[-1]] * len(branch))[20:]
        for branch in branches
    ]
    assert torch.allclose(found, torch.cat(expected), atol=1e-4)
    assert cache.length == 20


@pytest.mark.parametrize("name", [*REFUSED, *STATEFUL])
def test_what_shared_passes_would_get_wrong_is_refused_and_stays_as_it_was(name):
    config = {**REFUSED, **STATEFUL}[name]
    model, ids = build(config), some_ids(1, 60)
    expected = whole(model, ids, None)
    assert share(model, POSITIONS, int8=has_fast_int8()) is None
    assert torch.equal(whole(model, ids, None), expected)


@pytest.mark.parametrize("name", [*REFUSED, *STATEFUL])
def test_the_serial_path_is_right_at_every_token_and_turn(name):
    model = build({**REFUSED, **STATEFUL}[name])
    reading, ids = SerialModel(model).begin(), some_ids(1, 40)
    for turn in range(3):
        reply = []
        for _ in range(LENGTH):
            reply.append(int(reading.logits(ids + reply).argmax()))
        assert_greedy(model, ids, reply, None)
        ids = ids + reply + some_ids(turn, 6)
    # another beginning, as after an edited message, is read anew
    other = some_ids(7, 30)
    assert int(reading.logits(other).argmax()) == int(whole(model, other, None)[-1].argmax())


ALIBI = {
    "bloom": REFUSED["bloom"],
    "falcon alibi": modern("Falcon", alibi=True),
    "mpt": lambda: MptConfig(vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=2),
}


@pytest.mark.parametrize("name", [*ALIBI, "falcon", "gptj"])
def test_candidates_on_the_serial_path_score_as_each_alone(name):
    model = build({**REFUSED, **ALIBI}[name])
    backend = SerialBackend(model)
    assert (backend.scorer.cache is None) == (name in ALIBI)
    replies = [some_ids(1, 10), some_ids(2, 3), some_ids(3, 15)]
    for count in (30, 27):
        prompt = Prompt(some_ids(4, count), None, 0)
        expected = score_one_by_one(model, prompt, replies).log_likelihoods
        assert backend.score(prompt, replies) == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("kinds", [1, 2])
def test_a_model_with_few_token_types_is_tried_with_those(kinds):
    model = build(modern("Bert", is_decoder=True, type_vocab_size=kinds))
    assert max(gate.trial(model)[1]) == kinds - 1
    assert SerialBackend(model).serial.at_a_time > 0


def test_a_model_that_keeps_nothing_is_computed_whole():
    class Forgetful(torch.nn.Module):
        """Takes a cache and ignores it."""

        def __init__(self, inner):
            super().__init__()
            self.inner, self.config = inner, inner.config
            self.device, self.dtype = inner.device, inner.dtype
            self.get_input_embeddings = inner.get_input_embeddings

        def forward(self, input_ids, past_key_values=None, use_cache=None):
            out = self.inner(input_ids=input_ids, use_cache=False)
            out.past_key_values = past_key_values or "something"
            return out

    model = build(SHARED["llama"])
    serial = SerialModel(Forgetful(model))
    assert serial.at_a_time == 0
    reading, ids = serial.begin(), some_ids(1, 20)
    for _ in range(4):
        ids.append(int(reading.logits(ids).argmax()))
    assert_greedy(model, ids[:20], ids[20:], None)


def test_a_pass_that_fails_on_the_serial_path_leaves_nothing_half_read(monkeypatch):
    model, ids = build(STATEFUL["lfm2"]), some_ids(1, 20)
    serial = SerialModel(model)
    reading, real = serial.begin(), serial.step
    reading.logits(ids)

    def broken(*arguments):
        real(*arguments)
        raise RuntimeError("broken")

    with monkeypatch.context() as now:
        now.setattr(serial, "step", broken)
        with pytest.raises(RuntimeError):
            reading.logits([*ids, 7])
    expected = whole(model, [*ids, 7], None)[-1]
    assert torch.allclose(reading.logits([*ids, 7]), expected, atol=1e-4)


@pytest.mark.skipif(not has_fast_int8(), reason="this CPU has no fast int8 products")
class TestInt8:
    @pytest.mark.parametrize("name", ["gpt2", "gpt", "qwen2", "opt", "neox"])
    def test_every_linear_layer_gets_it(self, name):
        model, plain = build(SHARED[name]), build(SHARED[name])
        shared = share(model, POSITIONS, int8=True)
        kinds = {type(layer) for layer in model.modules()}
        assert Int8Linear in kinds and torch.nn.Linear not in kinds
        ids = some_ids(1, 30)
        found = shared.forward([(ids, shared.new_cache())], all_positions=True)
        expected = whole(plain, ids, None)
        far = (found - expected).norm(dim=1) / expected.norm(dim=1)
        assert far.max() < 0.1

    def test_experts_stay_as_they_are(self):
        model = build(SHARED["mixtral"])
        assert share(model, POSITIONS, int8=True)
        assert not any(isinstance(layer, Int8Linear) for layer in model.modules())

    def test_where_it_would_cost_too_much_the_weights_come_back(self, monkeypatch):
        model, ids = build(SHARED["gpt2"]), some_ids(1, 30)
        expected = whole(model, ids, None)
        monkeypatch.setattr(gate, "INT8_TOLERANCE", 0.0)
        shared = share(model.bfloat16(), POSITIONS, int8=True)
        assert not any(isinstance(layer, Int8Linear) for layer in model.modules())
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        found = shared.forward([(ids, shared.new_cache())], all_positions=True)
        assert ((found - expected).norm() / expected.norm()) < 0.1


@pytest.mark.parametrize("name", ["gpt2", "gpt", "llama"])
def test_on_another_device_every_tensor_of_a_pass_is_there(name):
    """The meta device computes nothing, but refuses to mix with tensors of the CPU."""
    model = build(SHARED[name]).to("meta")
    use_our_attention(model)
    heads = 2
    shared = SharedModel(model, 2, heads, 32 // 4 if name == "llama" else 16, 64, torch.float32)
    caches = [shared.new_cache() for _ in range(4)]
    for cache in caches[:2]:
        shared.slots.allocate(cache, 40)
    types = types_of(some_ids(1, 12)) if name in TYPED else None
    parts = [(some_ids(1, 12), cache, types) for cache in caches]
    assert shared.forward(parts).shape == (4, VOCABULARY)
    parts = [([9], cache, types and types[-1:]) for cache in caches]
    logits = shared.forward(parts)
    assert (logits.shape, logits.device.type) == ((4, VOCABULARY), "meta")
    assert [cache.length for cache in caches] == [13] * 4
