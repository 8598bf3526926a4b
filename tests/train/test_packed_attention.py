"""Attention by conversation: the same losses and gradients as separate runs, for every kind of row and model."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, MistralConfig, Qwen3Config

from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from persona_bot.prompt import NOBODY, build_prompt
from tests.sft_tiny import examples_of, gpt2, plain_nats
from train.recipes import packed_attention
from train.recipes.collate import collate
from train.recipes.contrastive_loss import add_negatives
from train.recipes.packed_attention import dense_mask, is_by_conversation, trees_of
from train.recipes.packed_trainer import check_model, summed_loss

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
KINDS = {  # configuration, whether its attention can be by conversation
    "qwen3": (Qwen3Config(**SHAPE), True),
    "mistral": (MistralConfig(**SHAPE, sliding_window=None), True),
    "mistral with a window": (MistralConfig(**SHAPE, sliding_window=64), False),
    "gemma2 with its softcap": (Gemma2Config(**SHAPE), False),
    "bloom": (BloomConfig(hidden_size=32, n_layer=2, n_head=2), None),  # trained by no recipe
}


@pytest.fixture
def examples(chat_tokenizer):
    return examples_of(chat_tokenizer)


@pytest.fixture(params=["llama", "gpt2", *KINDS])
def model(request, chat_tokenizer, convai_tokenizer, chat_model):
    """Small models with transformers' own attention."""
    torch.manual_seed(0)
    if request.param == "llama":
        return copy.deepcopy(chat_model)
    if request.param == "gpt2":
        return gpt2(convai_tokenizer)
    config = copy.deepcopy(KINDS[request.param][0])
    config.vocab_size = len(chat_tokenizer)
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_row_is_worth_what_its_conversations_are(model, request, convai_tokenizer, examples):
    by_conversation = KINDS.get(request.node.callspec.params["model"], (None, True))[1]
    if by_conversation is None:
        with pytest.raises(UserError, match="bloom models"):
            check_model(model, examples[0])
        return
    if request.node.callspec.params["model"] == "gpt2":
        examples = examples_of(convai_tokenizer)
    sum(plain_nats(model, example) for example in examples).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    nats = sum(plain_nats(model, example) for example in examples).item()
    check_model(model, examples[1])
    assert is_by_conversation(model) is by_conversation
    model.zero_grad()
    total, count = summed_loss(model, collate([examples[:3], examples[3:]]))
    total.backward()
    assert count == sum(e.supervised for e in examples)
    assert total.item() == pytest.approx(nats, rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("longest", [1024, 8])  # both ways to attend
def test_rows_with_negatives_are_the_same_served_and_not(
    chat_model, chat_tokenizer, examples, monkeypatch, longest
):
    monkeypatch.setattr(packed_attention, "LONGEST", longest)
    model = copy.deepcopy(chat_model)
    nobody = build_prompt(find_layout(chat_tokenizer), NOBODY, [""], 500).ids
    batch = collate([add_negatives(examples, nobody, 2, seed=0)], 0.5)
    results = []
    for _ in range(2):
        model.zero_grad()
        total, _ = summed_loss(model, batch)
        total.backward()
        results.append((total.detach(), [p.grad.clone() for p in model.parameters()]))
        check_model(model, examples[0])
    assert is_by_conversation(model)
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


def test_a_branch_sees_its_trunk_up_to_where_it_hangs_and_itself():
    #                         trunk of 3, branches behind places 0 and 1, another trunk
    segments = torch.tensor([(3, -1), (1, 0), (2, 1), (2, -1)])
    seen = dense_mask(trees_of(segments))[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]


def test_a_served_model_is_a_plain_model_everywhere_else(chat_model, examples):
    model = copy.deepcopy(chat_model)
    check_model(model, examples[0])
    ids = torch.tensor([examples[1].ids])
    padded = torch.ones_like(ids).index_fill_(1, torch.arange(3), 0)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, chat_model(ids).logits)
        torch.testing.assert_close(
            model(ids, attention_mask=padded).logits, chat_model(ids, attention_mask=padded).logits
        )
