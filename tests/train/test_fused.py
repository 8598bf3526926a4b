"""The fused functions compute what peft and F.cross_entropy compute, gradients included."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.sft_tiny import settings
from train.recipes.fused import CrossEntropy, can_be_fused, fused_lora
from train.recipes.sft import add_lora


@pytest.fixture
def adapted(chat_model):
    model = add_lora(copy.deepcopy(chat_model), settings(lora_rank=4, lora_alpha=8))
    torch.manual_seed(0)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    return model.train()


def test_a_fused_adapter_has_the_logits_and_gradients_of_peft(adapted):
    results, ids = [], torch.tensor([[5, 6, 7, 8, 9]])
    for fuses in (False, True):
        adapted.zero_grad()
        with fused_lora(adapted) if fuses else torch.enable_grad():
            logits = adapted(ids).logits
            logits.square().sum().backward()
        grads = {n: p.grad.clone() for n, p in adapted.named_parameters() if p.requires_grad}
        results.append((logits.detach(), grads))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    assert all(gradient.abs().max() > 0 for gradient in results[1][1].values())


def test_peft_has_its_layers_back_afterwards(adapted):
    layers = [module for module in adapted.modules() if can_be_fused(module)]
    assert len(layers) == 2 * 7
    with fused_lora(adapted):
        assert all(layer.lora_variant for layer in layers)
        assert not any(map(can_be_fused, adapted.modules()))  # nor are they fused twice
    assert all(layer.cast_input_dtype_enabled and not layer.lora_variant for layer in layers)


def test_dropout_in_an_adapter_keeps_pefts_own_way(chat_model):
    model = add_lora(copy.deepcopy(chat_model), settings(lora_rank=4, lora_dropout=0.5))
    assert not any(map(can_be_fused, model.modules()))


@pytest.mark.parametrize("rows", [1, 64, 150])
def test_cross_entropy_and_its_gradient(rows):
    torch.manual_seed(0)
    logits, targets = torch.randn(rows, 50, requires_grad=True), torch.randint(0, 50, (rows,))
    expected = F.cross_entropy(logits, targets, reduction="sum")
    (expected / 7).backward()
    gradient, logits.grad = logits.grad, None
    found = CrossEntropy.apply(logits, targets)
    (found / 7).backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits.grad, gradient)
    with torch.no_grad():
        torch.testing.assert_close(CrossEntropy.apply(logits, targets), expected)
