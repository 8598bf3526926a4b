"""Replies of many visitors at once: nobody's text is mixed, one who fails or leaves costs nobody else anything.

Run: `python -m pytest tests/test_engine.py`
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from persona_bot.checkpoint import Checkpoint
from persona_bot.engine import MOST_NEW, Engine
from persona_bot.errors import UserError
from persona_bot.generation import Settings, stream_reply
from persona_bot.llama import FastLlama
from persona_bot.persona import Persona
from persona_bot.prompt import find_layout

LENGTH = {"min_tokens": 20, "max_tokens": 24}


@pytest.fixture
def checkpoint(chat_model, chat_tokenizer) -> Checkpoint:
    engine = Engine(FastLlama(chat_model, 512, int8=False))
    return Checkpoint(chat_model, chat_tokenizer, find_layout(chat_tokenizer), "tiny", torch.device("cpu"), 512, engine=engine)


def persona(number: int) -> Persona:
    return Persona("", (f"my lucky number is {number}.", "i love the sea."))


def reply(checkpoint: Checkpoint, number: int, stop: threading.Event | None = None) -> str:
    settings = Settings(seed=number, **LENGTH)  # each visitor draws other words
    return "".join(stream_reply(checkpoint, persona(number), [f"hello, {number} times!"], settings, stop))


def test_a_reply_is_the_one_that_transformers_passes_give(checkpoint, chat_model, chat_tokenizer):
    plain = Checkpoint(chat_model, chat_tokenizer, checkpoint.layout, "plain", torch.device("cpu"), 512)
    assert [reply(checkpoint, n) for n in range(5)] == [reply(plain, n) for n in range(5)]


def test_a_hundred_interleaved_replies_are_what_each_is_alone(checkpoint):
    alone = [reply(checkpoint, number) for number in range(100)]
    assert len(set(alone)) == 100
    before = checkpoint.engine.passes
    with ThreadPoolExecutor(100) as visitors:
        assert list(visitors.map(lambda number: reply(checkpoint, number), range(100))) == alone
    assert checkpoint.engine.passes - before < 100 * LENGTH["max_tokens"] / 4  # they did share passes


def test_one_that_fails_costs_no_other(checkpoint, monkeypatch):
    alone = [reply(checkpoint, number) for number in range(8)]
    real, bad = checkpoint.engine.model.forward, set()

    def forward(parts):
        if any(id(cache) in bad for _, cache in parts):
            raise RuntimeError("broken")
        return real(parts)

    make, made = checkpoint.engine.model.new_cache, []

    def new_cache():
        made.append(make())
        if len(made) == 4:
            bad.add(id(made[-1]))
        return made[-1]

    monkeypatch.setattr(checkpoint.engine.model, "forward", forward)
    monkeypatch.setattr(checkpoint.engine.model, "new_cache", new_cache)
    checkpoint.prefixes._entries.clear()
    with ThreadPoolExecutor(8) as visitors:
        outcomes = [visitors.submit(reply, checkpoint, number) for number in range(8)]
    failed = [k for k, outcome in enumerate(outcomes) if outcome.exception()]
    assert len(failed) == 1 and isinstance(outcomes[failed[0]].exception(), UserError)
    assert [outcome.result() for k, outcome in enumerate(outcomes) if k not in failed] == [
        a for k, a in enumerate(alone) if k not in failed
    ]
    assert reply(checkpoint, 3) == alone[3] or failed == [3]


def test_out_of_memory_lowers_the_batch_and_goes_on(checkpoint, monkeypatch):
    alone = [reply(checkpoint, number) for number in range(8)]
    real = checkpoint.engine.model.forward

    def forward(parts):
        if len(parts) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return real(parts)

    monkeypatch.setattr(checkpoint.engine.model, "forward", forward)
    with ThreadPoolExecutor(8) as visitors:
        assert list(visitors.map(lambda number: reply(checkpoint, number), range(8))) == alone
    assert checkpoint.engine.most_at_once <= 2


def test_stopping_one_leaves_the_others(checkpoint, monkeypatch):
    real = checkpoint.engine.model.forward
    monkeypatch.setattr(checkpoint.engine.model, "forward", lambda parts: (time.sleep(0.02), real(parts))[1])
    alone = [reply(checkpoint, number) for number in range(4)]
    stop = threading.Event()
    with ThreadPoolExecutor(4) as visitors:
        others = [visitors.submit(reply, checkpoint, number) for number in range(3)]
        stopped = visitors.submit(reply, checkpoint, 3, stop)
        time.sleep(0.15)
        stop.set()
        at = time.monotonic()
        text = stopped.result(timeout=5)
        assert time.monotonic() - at < 0.5
    assert alone[3].startswith(text) and len(text) < len(alone[3])
    assert [other.result() for other in others] == alone[:3]
    assert checkpoint.engine._expected == {} and checkpoint.engine._waiting == []


def test_a_visitor_who_pauses_holds_up_nobody(checkpoint):
    paused = iter(stream_reply(checkpoint, persona(1), ["hello!"], Settings(**LENGTH)))
    next(paused)
    started = time.monotonic()
    reply(checkpoint, 2)
    assert time.monotonic() - started < 5
    assert len("".join(paused)) > 0


def test_a_long_prompt_takes_several_passes(checkpoint):
    ids = [50 + k % 90 for k in range(MOST_NEW + 40)]
    cache, engine = checkpoint.engine.model.new_cache(), checkpoint.engine
    logits = engine.forward(ids, cache)
    assert (engine.passes, cache.length) == (2, len(ids))
    whole = engine.model.forward([(ids, engine.model.new_cache())])[0]
    assert torch.allclose(logits, whole, atol=1e-4)
