"""Drawing for all rows at once gives each reply what it draws alone. Run: python -m pytest tests/persona_bot/test_device_sampler.py"""

import pytest
import torch

from persona_bot.engine.device_sampler import draw
from persona_bot.engine.sampler import NO_NUMBER, Sampler
from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from persona_bot.settings import Settings

MIXED = [
    {"temperature": 0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 2.0, "top_p": 0.5, "top_k": 40, "repetition_penalty": 1.8},
    {"temperature": 1.0, "top_p": 1.0, "no_repeat_ngram": 1},
    {"temperature": 0.5, "min_tokens": 30, "max_tokens": 40},
    {"temperature": 1.0, "min_tokens": 0, "max_tokens": 10},
]


def samplers(tokenizer) -> list[Sampler]:
    layout = find_layout(tokenizer)
    made = [Settings(seed=k, **{"min_tokens": 2, **each}) for k, each in enumerate(MIXED)]
    return [Sampler(layout, settings, [60, 61, 62, 63]) for settings in made]


def test_rows_are_what_each_draws_alone(chat_tokenizer):
    alone, together = samplers(chat_tokenizer), samplers(chat_tokenizer)
    replies: list[list[int]] = [[] for _ in MIXED]
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        logits = torch.randn(len(MIXED), 350, generator=generator) * 3
        expected = [s.sample(logits[k], replies[k]) for k, s in enumerate(alone)]
        assert draw(logits, together, replies) == expected
        for reply, token in zip(replies, expected, strict=True):
            reply.append(token)


@pytest.mark.parametrize("row", [0, 3])
def test_a_row_without_numbers_costs_no_other(chat_tokenizer, row):
    logits = torch.randn(len(MIXED), 350)
    logits[row, 7] = torch.nan
    found = draw(logits, samplers(chat_tokenizer), [[] for _ in MIXED])
    assert isinstance(found[row], UserError) and str(found[row]) == NO_NUMBER
    assert [isinstance(token, int) for token in found].count(True) == len(MIXED) - 1
