"""The fast Llama computes what transformers computes, however the tokens are divided into passes.

Run: `python -m pytest tests/persona_bot/test_llama.py`
"""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F

from persona_bot.engine.int8_linear import FloatLinear, Int8Linear, has_fast_int8
from persona_bot.engine.llama import FastLlama, can_run
from persona_bot.engine.llama_layers import balanced
from persona_bot.engine.passes import causal

IDS = list(range(40, 120))


@pytest.fixture
def llama(chat_model) -> FastLlama:
    return FastLlama(chat_model.config, chat_model.state_dict(), 512, int8=False)


@pytest.fixture
def expected(chat_model) -> torch.Tensor:
    with torch.no_grad():
        return chat_model(torch.tensor([IDS])).logits[0]


def test_all_logits_are_those_of_transformers(llama, expected):
    assert torch.allclose(
        llama.forward([(IDS, llama.new_cache())], all_positions=True), expected, atol=1e-4
    )


@pytest.mark.parametrize("cuts", [[1], [79], [30, 31, 60], list(range(1, 80))])
def test_in_several_passes(llama, expected, cuts):
    cache, last = llama.new_cache(), None
    for start, end in zip([0, *cuts], [*cuts, 80], strict=True):
        last = llama.forward([(IDS[start:end], cache)])
        assert torch.allclose(last[0], expected[end - 1], atol=1e-4)
    assert cache.length == 80


def test_conversations_of_any_length_share_a_pass(llama):
    parts = [IDS[:1], IDS[5:70], IDS[3:5], IDS]
    alone = [llama.forward([(ids, llama.new_cache())])[0] for ids in parts]
    caches = [llama.new_cache() for _ in parts]
    together = llama.forward(list(zip(parts, caches, strict=True)))
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)
    after = llama.forward([([7], cache) for cache in caches])
    assert torch.allclose(
        after[1], llama.forward([([*parts[1], 7], llama.new_cache())])[0], atol=1e-4
    )


def test_a_copy_of_keys_and_values_goes_its_own_way(llama, expected):
    cache = llama.new_cache()
    llama.forward([(IDS[:50], cache)])
    copied = cache.copy(30)
    llama.forward([([9] * 300, cache)])  # beyond the room that there was
    assert torch.allclose(llama.forward([(IDS[30:], copied)])[0], expected[-1], atol=1e-4)


def test_branches_see_what_came_before_and_themselves(llama):
    cache, branches = llama.new_cache(), [IDS[50:53], [], IDS[60:80], IDS[9:10]]
    llama.forward([(IDS[:50], cache)])
    together = llama.forward_branches(branches, cache)
    assert cache.length == 50
    alone = [
        llama.forward([(branch, cache.copy(50))], all_positions=True)
        for branch in branches
        if branch
    ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)


def test_a_pass_that_fails_changes_no_conversation(llama, expected, monkeypatch):
    cache = llama.new_cache()
    llama.forward([(IDS[:50], cache)])
    with monkeypatch.context() as broken:
        broken.setattr(llama, "head", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            llama.forward([([1, 2, 3], cache)])
    assert cache.length == 50
    assert torch.allclose(llama.forward([(IDS[50:], cache)])[0], expected[-1], atol=1e-4)


def test_a_balanced_norm_and_matrix_give_the_same_and_round_better():
    torch.manual_seed(0)
    norm, weight, x = torch.randn(320), torch.randn(480, 320), torch.randn(6, 320)
    norm[5], weight[:, 5] = 60, weight[:, 5] / 100  # large, and of little weight
    even_norm, even_weight = balanced(norm, weight)
    exact = F.linear(x * norm, weight)
    assert torch.allclose(F.linear(x * even_norm, even_weight), exact, rtol=1e-4, atol=1e-3)

    def error(norm, weight):
        rows = x * norm
        scale = rows.abs().amax(1, keepdim=True) / 127
        rounded = F.linear((rows / scale).round() * scale, weight)
        return ((rounded - exact).norm() / exact.norm()).item()

    assert error(even_norm, even_weight) < error(norm, weight) / 4


@pytest.mark.skipif(
    not has_fast_int8(), reason="this CPU has no fast int8 products, and the product then uses none"
)
class TestInt8:
    def test_products_are_close_and_rows_do_not_meet(self):
        torch.manual_seed(0)
        weight, x = torch.randn(48, 32), torch.randn(6, 32)
        x[2] *= 1_000  # an outlier in one row costs the others nothing
        linear, exact = Int8Linear(weight), FloatLinear(weight)(x)
        error = (linear(x) - exact).norm(dim=1) / exact.norm(dim=1)
        assert error.max() < 0.02
        # in any company, and alone
        assert torch.equal(linear(x)[3:5], linear(x[3:5]))
        assert torch.equal(linear(x)[3:4], linear(x[3:4]))

    def test_a_bias_is_added_whole(self):
        weight, bias, x = torch.randn(48, 32), torch.randn(48), torch.randn(6, 32)
        expected = Int8Linear(weight)(x) + bias
        assert torch.allclose(Int8Linear(weight, bias)(x), expected, atol=1e-5)

    def test_the_weights_it_is_made_of_stay_as_they_are(self):
        weight = torch.randn(8, 4)
        before = weight.clone()
        Int8Linear(weight)
        assert torch.equal(weight, before)

    def test_a_row_of_zeros(self):
        assert torch.equal(Int8Linear(torch.randn(8, 4))(torch.zeros(2, 4)), torch.zeros(2, 8))

    def test_the_model_says_nearly_the_same(self, chat_model, expected):
        llama = FastLlama(chat_model.config, chat_model.state_dict(), 512, int8=True)
        found = llama.forward([(IDS, llama.new_cache())], all_positions=True)
        assert (
            F.cross_entropy(found, expected.softmax(-1))
            < F.cross_entropy(expected, expected.softmax(-1)) * 1.01
        )


def test_without_torchscript(chat_model, expected, monkeypatch):
    """As from Python 3.14 on."""
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    llama = FastLlama(chat_model.config, chat_model.state_dict(), 512, int8=False)
    assert not isinstance(llama.layers, torch.jit.ScriptModule)
    caches = [llama.new_cache() for _ in range(3)]
    for cache in caches[1:]:
        llama.slots.allocate(cache, 100)
    found = llama.forward([(IDS[:70], caches[0]), (IDS[:9], caches[1]), (IDS[:20], caches[2])])
    assert torch.allclose(found, expected[[69, 8, 19]], atol=1e-4)
    found = llama.forward([(IDS[70:], caches[0]), (IDS[9:10], caches[1]), (IDS[20:21], caches[2])])
    assert torch.allclose(found, expected[[79, 9, 20]], atol=1e-4)


def test_which_models_it_can_run(chat_model, convai_model):
    biased, growing = copy.deepcopy(chat_model.config), copy.deepcopy(chat_model.config)
    biased.mlp_bias = True
    growing.rope_parameters = {**growing.rope_parameters, "rope_type": "dynamic", "factor": 2.0}
    assert [
        can_run(config) for config in (chat_model.config, convai_model.config, biased, growing)
    ] == [True, False, False, False]


@pytest.mark.parametrize(
    "kind",
    [
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    ],
    ids=lambda kind: kind["rope_type"],
)
def test_scaled_rotations_are_those_of_transformers(chat_model, kind):
    config = copy.deepcopy(chat_model.config)
    config.rope_parameters = {"rope_theta": 10_000.0, **kind}
    model = type(chat_model)(config).eval()
    llama = FastLlama(config, model.state_dict(), 512, int8=False)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0]
    assert torch.allclose(
        llama.forward([(IDS, llama.new_cache())], all_positions=True), expected, atol=1e-4
    )


def test_the_mask():
    assert causal(2, 3, torch.device("cpu")).int().tolist() == [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
