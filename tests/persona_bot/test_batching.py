"""Replies of many visitors at once: nobody's text is mixed, one who fails or leaves costs nobody else anything.

Run: `python -m pytest tests/persona_bot/test_batching.py`
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from persona_bot.engine import batching
from persona_bot.engine.batching import MAX_BATCH, MAX_BATCH_TOKENS
from persona_bot.engine.kv_cache import MAX_SLOTS
from persona_bot.engine.request import Request
from persona_bot.engine.sampler import Sampler
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.models import batched_model, plain_model

LENGTH = {"min_tokens": 20, "max_tokens": 24}


@pytest.fixture
def model(chat_model, chat_tokenizer) -> LocalModel:
    return batched_model(chat_model, chat_tokenizer)


def persona(number: int) -> Persona:
    return Persona("", (f"my lucky number is {number}.", "i love the sea."))


def reply(model: LocalModel, number: int, stop: threading.Event | None = None) -> str:
    settings = Settings(seed=number, **LENGTH)  # each visitor draws other words
    return "".join(model.reply(persona(number), [f"hello, {number} times!"], settings, stop))


def test_a_reply_is_the_one_that_transformers_passes_give(model, chat_model, chat_tokenizer):
    plain = plain_model(chat_model, chat_tokenizer)
    assert [reply(model, n) for n in range(5)] == [reply(plain, n) for n in range(5)]


def test_a_hundred_interleaved_replies_are_what_each_is_alone(model):
    alone = [reply(model, number) for number in range(100)]
    assert len(set(alone)) == 100
    before = model.backend.engine.passes
    with ThreadPoolExecutor(100) as visitors:
        assert list(visitors.map(lambda number: reply(model, number), range(100))) == alone
    # they did share passes
    assert model.backend.engine.passes - before < 100 * LENGTH["max_tokens"] / 4


def test_one_that_fails_costs_no_other(model, monkeypatch):
    alone = [reply(model, number) for number in range(8)]
    tokens, forward, of_three = model.backend.engine.tokens, model.backend.engine.model.forward, []

    def tokens_for(request):
        if request.sampler.settings.seed == 3:
            of_three.append(request.cache)
        return tokens(request)

    def broken_for_three(parts):
        if any(part.cache is bad for part in parts for bad in of_three):
            raise RuntimeError("broken")
        return forward(parts)

    monkeypatch.setattr(model.backend.engine, "tokens", tokens_for)
    monkeypatch.setattr(model.backend.engine.model, "forward", broken_for_three)
    with ThreadPoolExecutor(8) as visitors:
        outcomes = [visitors.submit(reply, model, number) for number in range(8)]
    assert isinstance(outcomes[3].exception(), UserError)
    others = [number for number in range(8) if number != 3]
    assert [outcomes[number].result() for number in others] == [alone[number] for number in others]


def test_out_of_memory_lowers_the_batch_and_goes_on(model, monkeypatch):
    alone = [reply(model, number) for number in range(8)]
    real = model.backend.engine.model.forward

    def forward(parts):
        if len(parts) > 2:
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
            )
        return real(parts)

    monkeypatch.setattr(model.backend.engine.model, "forward", forward)
    with ThreadPoolExecutor(8) as visitors:
        assert list(visitors.map(lambda number: reply(model, number), range(8))) == alone
    assert model.backend.engine.batch_limit <= 2


def test_stopping_one_leaves_the_others(model, monkeypatch):
    real = model.backend.engine.model.forward
    monkeypatch.setattr(
        model.backend.engine.model, "forward", lambda parts: (time.sleep(0.02), real(parts))[1]
    )
    alone = [reply(model, number) for number in range(4)]
    stop = threading.Event()
    with ThreadPoolExecutor(4) as visitors:
        others = [visitors.submit(reply, model, number) for number in range(3)]
        stopped = visitors.submit(reply, model, 3, stop)
        time.sleep(0.15)
        before = model.backend.engine.passes
        stop.set()
        text = stopped.result(timeout=30)
        # it sees it at its next token, and the next pass may have begun without it
        assert model.backend.engine.passes - before <= 4
    assert alone[3].startswith(text) and len(text) < len(alone[3])
    assert [other.result() for other in others] == alone[:3]
    model.backend.engine.reap_finished()
    assert (
        model.backend.engine._queue
        == model.backend.engine._running
        == model.backend.engine._members
        == []
    )


def test_a_visitor_who_pauses_holds_up_nobody_and_is_written_for_meanwhile(model):
    alone = [reply(model, number) for number in (1, 2)]
    paused = iter(model.reply(persona(1), ["hello, 1 times!"], Settings(seed=1, **LENGTH)))
    first = next(paused)
    assert reply(model, 2) == alone[1]
    before = model.backend.engine.passes
    assert first + "".join(paused) == alone[0]
    assert model.backend.engine.passes == before  # the other's passes had written all of it


def test_who_leaves_takes_the_keys_and_values_along(model):
    """Whatever was written ahead, the next turn finds a cache that fits."""
    leaver = iter(model.reply(persona(1), ["hello!"], Settings(seed=1, **LENGTH)))
    next(leaver)
    with ThreadPoolExecutor(4) as visitors:
        others = [visitors.submit(reply, model, number) for number in range(2, 6)]
        leaver.close()
        assert all(other.result() for other in others)
    model.backend.engine.reap_finished()
    assert (
        model.backend.engine._queue
        == model.backend.engine._running
        == model.backend.engine._members
        == []
    )
    assert [cache.length for _, cache in model.backend.prefixes.entries()] == [
        len(ids) for ids, _ in model.backend.prefixes.entries()
    ]
    model.backend.prefixes.clear()
    cold = reply(model, 1)
    assert reply(model, 1) == cold


def test_ending_a_reply_never_waits(model, monkeypatch):
    """The garbage collector ends a reply in whatever thread it runs, here one that holds a lock which the pass is waiting for."""
    lock, inside = threading.Lock(), threading.Event()
    real = Sampler.sample

    def pick(sampler, logits, ids):
        if len(ids) == 5:
            inside.set()
            with lock:
                pass
        return real(sampler, logits, ids)

    monkeypatch.setattr(Sampler, "sample", pick)
    alone = reply(model, 1)
    inside.clear()
    given_up = iter(model.reply(persona(0), ["hello!"], Settings(seed=0, **LENGTH)))
    next(given_up)
    with ThreadPoolExecutor(2) as threads:
        lock.acquire()
        other = threads.submit(reply, model, 1)
        assert (
            inside.wait(30) and model.backend.engine._running
        )  # both are in the pass that draws now
        ended = threads.submit(given_up.close)
        try:
            assert ended.result(10) is None
        finally:
            lock.release()
        assert other.result(30) == alone
    model.backend.engine.reap_finished()
    assert (
        model.backend.engine._members == []
        and len(model.backend.engine.model.slots._free) == MAX_SLOTS
    )


def test_a_draw_that_fails_costs_no_other(model, monkeypatch):
    alone = [reply(model, number) for number in range(8)]
    real = Sampler.sample

    def pick(sampler, logits, ids):
        if sampler.settings.seed == 5 and len(ids) == 3:
            raise UserError("No word fits.")
        return real(sampler, logits, ids)

    monkeypatch.setattr(Sampler, "sample", pick)
    with ThreadPoolExecutor(8) as visitors:
        outcomes = [visitors.submit(reply, model, number) for number in range(8)]
    assert [str(outcome.exception()) for outcome in outcomes if outcome.exception()] == [
        "No word fits."
    ]
    assert [outcome.result() for k, outcome in enumerate(outcomes) if k != 5] == [
        a for k, a in enumerate(alone) if k != 5
    ]


def test_a_long_prompt_takes_several_passes_in_which_the_others_go_on(model):
    fast, engine = model.backend.engine.model, model.backend.engine
    greedy = Settings(
        temperature=0, min_tokens=20, max_tokens=30, repetition_penalty=1, no_repeat_ngram=0
    )
    short, long = [60, 61, 62], [50 + k % 90 for k in range(MAX_BATCH_TOKENS + 40)]

    def request(ids: list[int]) -> Request:
        return Request(ids, 0, fast.new_cache(), Sampler(model.layout, greedy, []))

    writing, reading = request(short), request(long)
    written = engine.tokens(writing)
    next(written)
    with closing(engine.tokens(reading)) as read:
        before = engine.passes
        first = next(read)
        assert engine.passes - before == 2
        assert len(writing.reply) == 3  # one before, and one in each of the two passes
    whole = fast.forward([(long, fast.new_cache())])[0]
    assert first == Sampler(model.layout, greedy, []).sample(whole, [])
    assert len(list(written)) == 29 - (writing.reply[-1] in model.layout.stop_ids) * (
        30 - len(writing.reply)
    )


def test_more_replies_than_a_pass_holds_all_get_their_turn(model):
    model.backend.engine.batch_limit = 3
    alone = [reply(model, number) for number in range(10)]
    with ThreadPoolExecutor(10) as visitors:
        assert list(visitors.map(lambda number: reply(model, number), range(10))) == alone


def test_after_out_of_memory_the_batch_grows_again(model, monkeypatch):
    engine, real = model.backend.engine, model.backend.engine.model.forward

    def forward(parts):
        if len(parts) > 2:  # a reply's own and its guide's
            raise MemoryError
        return real(parts)

    with monkeypatch.context() as full:
        full.setattr(engine.model, "forward", forward)
        with ThreadPoolExecutor(4) as visitors:
            list(visitors.map(lambda number: reply(model, number), range(4)))
    assert engine.batch_limit == 1
    reply(model, 1)
    assert engine.batch_limit == 1  # not at once
    monkeypatch.setattr(batching, "RECOVERY", -1.0)
    reply(model, 1)
    assert engine.batch_limit == MAX_BATCH


@pytest.mark.parametrize("step", ["_schedule", "_run"])
def test_an_interrupted_leader_hands_on(model, monkeypatch, step):
    """Ctrl-C in the terminal ends one reply; the next one does not wait for a leader that is gone."""
    alone = reply(model, 1)
    real = getattr(model.backend.engine, step)

    def interrupted(*arguments):
        monkeypatch.setattr(model.backend.engine, step, real)
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(model.backend.engine, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        reply(model, 2)
    assert reply(model, 1) == alone
    assert model.backend.engine._queue == model.backend.engine._running == []
