"""The best of several replies: which one it is, what it shares, and how it ends. Run: python -m pytest tests/test_best_of.py"""

import threading
import time
from dataclasses import replace

import pytest
import torch

from persona_bot.checkpoints.load import Checkpoint, load_checkpoint
from persona_bot.engine.batching import Engine
from persona_bot.engine.llama import FastLlama
from persona_bot.engine.prefix_cache import PrefixCache
from persona_bot.errors import UserError
from persona_bot.prompt import build_prompt, find_layout
from persona_bot.replies.best_of import APART, BestReply
from persona_bot.replies.remote import Endpoint, begin_reply
from persona_bot.settings import Settings
from persona_bot.replies.scoring import prompt_of_nothing, reply_ids

TURNS = ["hello, how are you?"]
SETTINGS = Settings(seed=5, best_of=4, min_tokens=3, max_tokens=12)


@pytest.fixture(params=["engine", "plain", "convai"])
def checkpoint(request, chat_model, chat_tokenizer, convai_model, convai_tokenizer) -> Checkpoint:
    convai = request.param == "convai"
    model, tokenizer = (convai_model, convai_tokenizer) if convai else (chat_model, chat_tokenizer)
    engine = (
        Engine(FastLlama(chat_model.config, chat_model.state_dict(), 512, int8=False))
        if request.param == "engine"
        else None
    )
    room = 256 if convai else 512
    return Checkpoint(
        model, tokenizer, find_layout(tokenizer), "tiny", torch.device("cpu"), room, engine=engine
    )


def gain(checkpoint: Checkpoint, persona, text: str) -> float:
    """log p(reply | prompt) - log p(reply | nothing), by whole passes of the transformers model."""
    reply, values = reply_ids(checkpoint.layout, text), []
    for prompt in (
        build_prompt(checkpoint.layout, persona, TURNS, checkpoint.max_positions - 12),
        prompt_of_nothing(checkpoint),
    ):
        inputs = {"input_ids": torch.tensor([prompt.ids + reply])}
        if prompt.token_types:
            inputs["token_type_ids"] = torch.tensor(
                [prompt.token_types + [checkpoint.layout.speaker1] * len(reply)]
            )
        with torch.no_grad():
            logits = checkpoint.model(**inputs).logits[0, len(prompt.ids) - 1 : -1]
        values.append(logits.log_softmax(-1)[range(len(reply)), reply].sum().item())
    return values[0] - values[1]


def test_it_is_the_draft_that_gains_most_from_the_conversation(checkpoint, environmentalist):
    reply = checkpoint.reply(environmentalist, TURNS, SETTINGS)
    pieces = list(reply)
    alone = replace(checkpoint, prefixes=PrefixCache())
    seeds = [5 + APART * k for k in range(4)]
    drafts = [
        "".join(alone.reply(environmentalist, TURNS, replace(SETTINGS, best_of=1, seed=s)))
        for s in seeds
    ]
    assert reply.drafts == drafts and len(set(drafts)) == 4
    assert reply.text == max(drafts, key=lambda text: gain(checkpoint, environmentalist, text))
    assert [piece for piece in pieces if piece] == [reply.text]
    assert (
        reply.finish_reason in ("end", "length")
        and 3 <= reply.num_tokens <= 12
        and reply.first_text_seconds == reply.seconds > 0
    )


def test_the_prompt_is_read_once_and_known_at_the_next_turn(
    chat_model, chat_tokenizer, environmentalist
):
    engine = Engine(FastLlama(chat_model.config, chat_model.state_dict(), 512, int8=False))
    checkpoint = Checkpoint(
        chat_model,
        chat_tokenizer,
        find_layout(chat_tokenizer),
        "tiny",
        torch.device("cpu"),
        512,
        engine=engine,
    )
    real, read = engine.model.forward, []

    def forward(parts, *rest):
        read.extend(len(part[0]) for part in parts)
        return real(parts, *rest)

    engine.model.forward = forward
    list(checkpoint.reply(environmentalist, TURNS, SETTINGS))
    prompt = len(build_prompt(checkpoint.layout, environmentalist, TURNS, 500).ids)
    long = [count for count in read if count > 1]
    # for all drafts; then the judge reads nothing, and what differs from it
    assert long[0] == prompt and len(long) == 3
    read.clear()
    list(checkpoint.reply(environmentalist, [*TURNS, "fine.", "good!"], SETTINGS))
    assert max(read) < prompt


def test_a_stop_and_a_visitor_who_leaves_end_all_drafts(checkpoint, environmentalist):
    long, stop = replace(SETTINGS, min_tokens=59, max_tokens=200, best_of=8), threading.Event()
    before = threading.active_count()
    reply = checkpoint.reply(environmentalist, TURNS, long, stop)
    next(iter(reply))
    stop.set()
    began = time.monotonic()
    list(reply)
    assert reply.finish_reason == "stop" and time.monotonic() - began < 5
    left = checkpoint.reply(environmentalist, TURNS, long)
    next(iter(left))
    left.close()
    assert left.text == "" and threading.active_count() == before


def test_a_draft_that_fails_is_told_in_one_sentence(
    chat_model, chat_tokenizer, environmentalist, monkeypatch
):
    checkpoint = Checkpoint(
        chat_model, chat_tokenizer, find_layout(chat_tokenizer), "tiny", torch.device("cpu"), 512
    )
    reply = checkpoint.reply(environmentalist, TURNS, SETTINGS)

    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(checkpoint.model, "forward", broken)
    with pytest.raises(UserError, match="The model failed during the reply"):
        list(reply)


def test_a_server_elsewhere_cannot_choose(environmentalist):
    with pytest.raises(UserError, match="set best_of to 1"):
        object.__new__(Endpoint).reply(environmentalist, TURNS, SETTINGS)


def test_a_chat_without_a_transformers_model_can_choose(chat_folder, environmentalist):
    checkpoint = load_checkpoint(str(chat_folder), "cpu", for_chat=True)
    reply = checkpoint.reply(environmentalist, TURNS, SETTINGS)
    assert "".join(reply) == reply.text in reply.drafts and len(reply.drafts) == 4
