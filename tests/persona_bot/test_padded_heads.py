"""Heads with more rows than their tokenizer has texts: what has none is never drawn. Run: python -m pytest tests/persona_bot/test_padded_heads.py"""

import copy

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from persona_bot.engine.device_sampler import draw
from persona_bot.engine.sampler import Sampler
from persona_bot.layouts import find_layout
from persona_bot.settings import Settings
from tests.models import batched_model, plain_model

TURNS = ["hello, how are you?"]


@pytest.fixture
def padded(chat_model, chat_tokenizer) -> LlamaForCausalLM:
    """Its head has 64 rows without a text, which win wherever they may."""
    module = copy.deepcopy(chat_model)
    module.resize_token_embeddings(len(chat_tokenizer) + 64, mean_resizing=False)
    texts = module.get_input_embeddings().weight.data[: len(chat_tokenizer)]
    module.lm_head.weight.data[len(chat_tokenizer) :] = 50 * texts[:64]
    return module


@pytest.mark.parametrize("build", [plain_model, batched_model])
@pytest.mark.parametrize("best_of", [1, 3])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_a_reply_holds_no_id_without_a_text(
    build, best_of, guidance_scale, padded, chat_tokenizer, environmentalist, monkeypatch
):
    model, drawn = build(padded, chat_tokenizer), []
    original = type(model.backend).generate

    def generate(*args):
        for token in original(*args):
            drawn.append(token)
            yield token

    monkeypatch.setattr(type(model.backend), "generate", generate)
    for temperature in (0.0, 2.0):
        settings = Settings(
            best_of=best_of,
            guidance_scale=guidance_scale,
            temperature=temperature,
            top_p=1,
            min_tokens=8,
            max_tokens=10,
            seed=1,
        )
        assert "".join(model.reply(environmentalist, TURNS, settings))
    tokens = [token for token in drawn if token is not None]
    assert len(tokens) >= 16 * best_of and max(tokens) < len(chat_tokenizer)


@pytest.mark.parametrize("top_k", [0, 40, 1_000])
def test_both_samplers_draw_as_if_the_rows_were_not_there(top_k, chat_tokenizer):
    layout, count = find_layout(chat_tokenizer), len(chat_tokenizer)
    made = [Settings(temperature=t, top_k=top_k, top_p=1, seed=3) for t in (0.0, 1.0, 2.0)]
    logits = torch.randn(3, count + 64, generator=torch.Generator().manual_seed(0))
    logits[:, count:] = 40.0

    def alone(scores):
        pairs = zip(made, scores, strict=True)
        return [Sampler(layout, settings, []).sample(row, []) for settings, row in pairs]

    expected = alone(logits[:, :count])
    samplers = [Sampler(layout, settings, []) for settings in made]
    assert alone(logits) == draw(logits, samplers, [[]] * 3) == expected


def test_holes_between_the_texts_are_not_drawn():
    words = {"</s>": 0, "hi": 1, "ho": 5, "!": 9, ":": 10}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="!")), eos_token="</s>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ ':' + m.content + '</s>' }}{% endfor %}"
    layout = find_layout(tokenizer)
    assert layout.num_ids == 11 and layout.control_ids == {0, 2, 3, 4, 6, 7, 8}
    sampler = Sampler(layout, Settings(temperature=0, min_tokens=0), [])
    assert sampler.sample(torch.arange(16.0), []) == 10
    assert sampler.sample(torch.tensor([0.0] * 5 + [1.0, 2.0, 3.0, 4.0] + [0.0] * 7), []) == 5
