"""Guided replies: transformers' own formula, bounded; what holds a reply against nothing is read once and given back.

Run: `python -m pytest tests/persona_bot/test_guidance.py` (guided replies in company: test_batching.py)
"""

import copy
from itertools import islice

import pytest
import torch

from persona_bot.engine.sampler import NO_NUMBER, PLAUSIBLE, Sampler, guided
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


def greedy(model: LocalModel, scale: float, persona) -> list[int]:
    prompt = build_prompt(model.layout, persona, TURNS, 400)
    sampler = Sampler(model.layout, Settings(guidance_scale=scale, **GREEDY), [])
    nothing = unconditional_prompt(model.layout, 400)
    return list(islice(model.backend.generate(prompt, sampler, True, nothing), 20))


def test_the_tokens_are_those_of_transformers_with_a_negative_prompt(
    model, decided, environmentalist, monkeypatch
):
    monkeypatch.setattr(
        "persona_bot.engine.sampler.PLAUSIBLE", 0.0
    )  # transformers guides every token
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


def test_only_plausible_tokens_are_guided_and_others_come_where_none_of_those_may(model):
    chances = torch.tensor([0.6, 0.3, 0.05, 0.05, 0.0])
    alone = torch.tensor([0.8, 0.05, 1e-6, 0.149999, 0.0]).log()
    given = chances.log()
    more = guided(given, alone, 1.5)
    assert (more[:2] - given[:2]).tolist() == pytest.approx(
        (0.5 * (given - alone)[:2]).tolist(), abs=1e-5
    )
    assert PLAUSIBLE * 0.6 > 0.05 and more.argmax() == 1  # the second gains, the third may not
    assert sorted(more[:4].tolist()) == more[[2, 3, 0, 1]].tolist() and more[4] == -torch.inf
    settings = Settings(temperature=1, top_p=1, guidance_scale=1.5, min_tokens=0)
    sampler = Sampler(model.layout, settings, [])
    sampler.suppressed_ids, sampler.stop_ids = [0, 1, 3], []
    assert sampler.sample(more, []) == 2
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


@pytest.mark.parametrize("penalty, ends", [(0, False), (2, False), (3, True)])
def test_an_afterthought_is_penalized_before_guidance(model, environmentalist, penalty, ends):
    """Alone the opener is 4 nats likelier than the end, so that guidance, which makes half as much again of a penalty, would leave only it."""
    full_stop = model.layout.encode(".")[-1]
    opener = Sampler(model.layout, Settings(), [], environmentalist.sentences).openers[0]
    original = model.backend.model.forward

    @torch.inference_mode()
    def forward(*parts, **inputs):
        newest = [part[0][-1] for part in parts[0]] if parts else inputs["input_ids"][:, -1]
        output = original(*parts, **inputs)
        for row, token in zip(output if parts else output.logits[:, -1], newest, strict=True):
            row.fill_(-30)
            row[opener if token == full_stop else full_stop] = 5
            row[model.layout.end_id] = 1
        return output

    model.backend.model.forward = forward
    plain = {"temperature": 0, "repetition_penalty": 1, "no_repeat_ngram": 0, "min_tokens": 0}
    settings = Settings(guidance_scale=1.5, max_tokens=40, afterthought_penalty=penalty, **plain)
    reply = model.reply(environmentalist, TURNS, settings)
    text = "".join(reply)
    assert (text == ".") is ends
    assert ends or text.startswith(f".{model.layout.decode([full_stop, opener])[1:]}.")
