"""Guided replies: transformers' own formula, bounded; what holds a reply against nothing is read once and given back.

Run: `python -m pytest tests/persona_bot/test_guidance.py` (guided replies in company: test_batching.py)
"""

import copy
from itertools import islice

import pytest
import torch

from persona_bot.engine.sampler import MAX_GUIDED, NO_NUMBER, Sampler, guided
from persona_bot.errors import UserError
from persona_bot.prompt import build_prompt, unconditional_prompt
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.models import batched_model, plain_model

TURNS = ["hello, how are you today?"]
GREEDY = {"temperature": 0, "min_tokens": 59, "repetition_penalty": 1, "no_repeat_ngram": 0}


@pytest.fixture
def decided(chat_model):
    """The tiny model with larger weights, so that what it says depends on what it reads."""
    module = copy.deepcopy(chat_model)
    with torch.no_grad():
        for weight in module.model.layers.parameters():
            weight.mul_(8 if weight.ndim == 2 else 1)
    return module


@pytest.fixture(params=["batched", "serial"])
def model(request, decided, chat_tokenizer) -> LocalModel:
    return (batched_model if request.param == "batched" else plain_model)(decided, chat_tokenizer)


@pytest.fixture
def sampler(model) -> Sampler:
    return Sampler(model.layout, Settings(guidance_scale=1.5, **GREEDY), [])


def greedy(model: LocalModel, scale: float, persona) -> list[int]:
    prompt = build_prompt(model.layout, persona, TURNS, 400)
    sampler = Sampler(model.layout, Settings(guidance_scale=scale, **GREEDY), [])
    nothing = unconditional_prompt(model.layout, 400)
    return list(islice(model.backend.generate(prompt, sampler, True, nothing), 20))


def test_the_tokens_are_those_of_transformers_with_a_negative_prompt(
    model, decided, environmentalist
):
    prompt = torch.tensor([build_prompt(model.layout, environmentalist, TURNS, 400).ids])
    nothing = torch.tensor([unconditional_prompt(model.layout, 400).ids])
    banned = sorted(model.layout.control_ids | model.layout.stop_ids)
    written = {1.0: greedy(model, 1.0, environmentalist)}
    for scale in (1.5, 3.0):
        out = decided.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            guidance_scale=scale,
            negative_prompt_ids=nothing,
            suppress_tokens=banned,
            max_new_tokens=20,
            do_sample=False,
        )
        written[scale] = out[0, prompt.shape[1] :].tolist()
        assert greedy(model, scale, environmentalist) == written[scale]
    assert len(set(map(tuple, written.values()))) == 3


def test_a_gain_is_bounded_and_what_cannot_be_stays_so(sampler):
    given = torch.tensor([0.0, -1.0, -20.0, -torch.inf, -torch.inf])
    alone = torch.tensor([-1.0, -1.0, -60.0, -torch.inf, 0.0])
    gain = given.log_softmax(-1) - alone.log_softmax(-1)
    more = guided(given, alone, 1.5) - given.log_softmax(-1)
    assert more[:2].tolist() == pytest.approx((0.5 * gain[:2]).tolist())
    assert more[2].item() == pytest.approx(0.5 * MAX_GUIDED) and gain[2] > MAX_GUIDED
    assert guided(given, alone, 1.5)[3:].tolist() == [-torch.inf, -torch.inf]
    with pytest.raises(UserError, match=NO_NUMBER):
        sampler.sample(guided(torch.full((5,), torch.nan), alone, 1.5), [])


def test_a_scale_of_1_reads_nothing_more(model, environmentalist):
    read, original = [], model.backend.model.forward

    def forward(*parts, **inputs):
        read.append(sum(len(p[0]) for p in parts[0]) if parts else inputs["input_ids"].numel())
        return original(*parts, **inputs)

    model.backend.model.forward = forward
    prompt = len(build_prompt(model.layout, environmentalist, TURNS, 400).ids)
    nothing = len(unconditional_prompt(model.layout, 400).ids)
    for scale, least, most in ((1.0, 0, 0), (2.0, 10, nothing + 9)):
        model.backend.tidy()
        model.backend.close()
        read.clear()
        settings = Settings(guidance_scale=scale, max_tokens=10, min_tokens=9, seed=1)
        reply = model.reply(environmentalist, TURNS, settings)
        list(reply)
        assert reply.num_tokens == 10 and least <= sum(read) - (prompt + 9) <= most


def test_slots_are_given_back_and_nothing_is_read_once(
    chat_model, chat_tokenizer, environmentalist
):
    model = batched_model(chat_model, chat_tokenizer)
    nothing = unconditional_prompt(model.layout, 512 - 60).ids
    for seed in range(3):
        reply = model.reply(environmentalist, TURNS, Settings(guidance_scale=2, seed=seed))
        list(islice(reply, 1 + seed))
        reply.close()
    model.backend.engine.reap_finished()
    assert model.backend.model.slots.bytes_written == 0
    entries = [ids for ids, _ in model.backend.prefixes.entries()]
    assert [ids == nothing for ids in entries].count(True) == 1
    prompt = build_prompt(model.layout, environmentalist, TURNS, 400).ids
    assert all(ids == nothing or ids[: len(prompt)] == prompt for ids in entries)
