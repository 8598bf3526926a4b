"""The best of several replies: which one it is, what it shares, and how it ends. Run: python -m pytest tests/persona_bot/test_best_of.py"""

import copy
import functools
import threading
import time
from dataclasses import replace

import pytest
import torch

from persona_bot import load_model
from persona_bot.engine.prefix_cache import common_length
from persona_bot.errors import UserError
from persona_bot.prompt import build_prompt, reply_ids, unconditional_prompt
from persona_bot.replies.best_of import APART
from persona_bot.replies.local import LocalModel
from persona_bot.replies.remote import Endpoint
from persona_bot.settings import Settings
from tests.models import batched_model, plain_model

TURNS = ["hello, how are you?"]
SETTINGS = Settings(seed=5, best_of=4, min_tokens=3, max_tokens=12)


@pytest.fixture(params=["batched", "serial", "convai"])
def model(request, chat_model, chat_tokenizer, convai_model, convai_tokenizer) -> LocalModel:
    if request.param == "convai":
        return plain_model(convai_model, convai_tokenizer, 256)
    return (batched_model if request.param == "batched" else plain_model)(
        chat_model, chat_tokenizer
    )


def gain(model: LocalModel, module, persona, text: str) -> float:
    """log p(reply | prompt) - log p(reply | nothing), by whole passes of the transformers module."""
    reply, values = reply_ids(model.layout, text), []
    for prompt in (
        build_prompt(model.layout, persona, TURNS, model.context_length - 12),
        unconditional_prompt(model.layout, model.context_length),
    ):
        inputs = {"input_ids": torch.tensor([prompt.ids + reply])}
        if prompt.token_types:
            types = prompt.token_types + [model.layout.speaker1] * len(reply)
            inputs["token_type_ids"] = torch.tensor([types])
        with torch.no_grad():
            logits = module(**inputs).logits[0, len(prompt.ids) - 1 : -1]
        values.append(logits.log_softmax(-1)[range(len(reply)), reply].sum().item())
    return values[0] - values[1]


def test_it_is_the_draft_that_gains_most_from_the_conversation(
    model, chat_model, convai_model, environmentalist
):
    reply = model.reply(environmentalist, TURNS, SETTINGS)
    pieces = list(reply)
    seeds = [5 + APART * k for k in range(4)]
    drafts = [
        "".join(model.reply(environmentalist, TURNS, replace(SETTINGS, best_of=1, seed=seed)))
        for seed in seeds
    ]
    module = convai_model if model.layout.name == "convai" else chat_model
    best_first = sorted(drafts, key=lambda text: -gain(model, module, environmentalist, text))
    assert reply.drafts == best_first and len(set(drafts)) == 4
    assert reply.text == best_first[0]
    assert [piece for piece in pieces if piece] == [reply.text]
    assert reply.finish_reason in ("stop", "length") and 3 <= reply.num_tokens <= 12
    assert reply.first_text_seconds == reply.seconds > 0


@pytest.mark.parametrize("kind", ["batched", "serial"])
def test_the_prompt_is_read_once_and_known_at_the_next_turn(
    kind, chat_model, chat_tokenizer, environmentalist
):
    read = []
    if kind == "batched":
        model = batched_model(chat_model, chat_tokenizer)
        real = model.backend.model.forward

        def forward(parts, *rest):
            read.extend(len(part[0]) for part in parts)
            return real(parts, *rest)
    else:
        model = plain_model(copy.deepcopy(chat_model), chat_tokenizer)
        real = model.backend.model.forward

        @functools.wraps(real)
        def forward(**inputs):
            read.append(inputs["input_ids"].shape[1])
            return real(**inputs)

    model.backend.model.forward = forward
    nothing = unconditional_prompt(model.layout, 512).ids
    # what any chat of this model begins with is known
    model.backend.prefill(unconditional_prompt(model.layout, 512))
    read.clear()
    settings = replace(SETTINGS, guidance_scale=1)
    list(model.reply(environmentalist, TURNS, settings))
    prompt = build_prompt(model.layout, environmentalist, TURNS, 500).ids
    new = len(prompt) - common_length(prompt, nothing)
    if kind == "serial":  # what is kept can be gone on with, but not cut; scores are read apart
        drafts = read[: 1 + SETTINGS.best_of]
        assert drafts == [len(prompt) - 1, *[1] * SETTINGS.best_of]
        return
    # each id of the prompt once, then only what a reply adds, and the candidates behind the last id
    assert read[0] == new
    assert set(read[1:]) == {1}
    read.clear()
    list(model.reply(environmentalist, [*TURNS, "fine.", "good!"]))
    assert max(read) < len(prompt)


def test_a_stop_and_a_visitor_who_leaves_end_all_drafts(model, environmentalist):
    long, stop = replace(SETTINGS, min_tokens=59, max_tokens=200, best_of=8), threading.Event()
    before = threading.active_count()
    reply = model.reply(environmentalist, TURNS, long, stop)
    next(iter(reply))
    stop.set()
    list(reply)
    assert reply.finish_reason == "cancelled"
    left = model.reply(environmentalist, TURNS, long)
    next(iter(left))
    left.close()
    assert (left.text, left.finish_reason) == ("", "cancelled")
    until = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_draft_that_fails_is_told_in_one_sentence(
    chat_model, chat_tokenizer, environmentalist, monkeypatch
):
    model = plain_model(chat_model, chat_tokenizer)
    reply = model.reply(environmentalist, TURNS, SETTINGS)

    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(chat_model, "forward", broken)
    with pytest.raises(UserError, match="The model failed during the reply"):
        list(reply)


def test_a_server_elsewhere_cannot_choose(environmentalist):
    with pytest.raises(UserError, match="set best_of to 1"):
        object.__new__(Endpoint).reply(environmentalist, TURNS, SETTINGS)


def test_a_chat_without_a_transformers_model_can_choose(chat_folder, environmentalist):
    reply = load_model(str(chat_folder), "cpu").reply(environmentalist, TURNS, SETTINGS)
    assert "".join(reply) == reply.text in reply.drafts and len(reply.drafts) == 4
