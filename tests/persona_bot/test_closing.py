"""Closing a reply waits for nothing: the garbage collector may be who does it, in a thread that holds any lock.

Run: `python -m pytest tests/persona_bot/test_closing.py`
"""

import gc
import threading
import weakref
from contextlib import ExitStack

import pytest

from persona_bot import text
from persona_bot.replies.remote import Endpoint
from persona_bot.settings import Settings
from tests.endpoint_peer import Peer, event
from tests.models import batched_model, plain_model

LONG = {"min_tokens": 60, "max_tokens": 200, "seed": 1}


@pytest.fixture(params=["batched", "serial", "remote"])
def model(request, chat_model, chat_tokenizer):
    if request.param != "remote":
        make = batched_model if request.param == "batched" else plain_model
        yield make(chat_model, chat_tokenizer)
        return
    peer = Peer()
    peer.script = [[event("bread"), *[0.01, b": x\n\n"] * 3_000]]
    endpoint = Endpoint(peer.url)
    yield endpoint
    endpoint.close()
    peer.shutdown()
    peer.server_close()


def locks_of(model) -> list:
    """Every lock of the program that a reply of this model could meet."""
    owners, locks = [model], [text.ENCODING]
    for owner in owners:
        for value in getattr(owner, "__dict__", {}).values():
            if hasattr(value, "acquire") and hasattr(value, "release"):
                locks.append(value)
            elif type(value).__module__.startswith("persona_bot") and value not in owners:
                owners.append(value)
    return locks


def collect_twice() -> None:
    """What a generator's `finally` touches comes back to life, and goes with the next collection."""
    gc.collect()
    gc.collect()


@pytest.mark.parametrize("best_of", [1, 3])
@pytest.mark.parametrize("begun", [False, True])
def test_the_garbage_collector_closes_a_reply_under_every_lock(
    model, environmentalist, best_of, begun
):
    if isinstance(model, Endpoint) and best_of > 1:
        return
    reply = model.reply(environmentalist, ["hello!"], Settings(best_of=best_of, **LONG))
    pieces = iter(reply)
    next(pieces)  # of an endpoint or of drafts perhaps an empty one
    while begun and best_of == 1 and not reply.text:
        next(pieces)
    gone = weakref.ref(pieces)
    gc.disable()  # so that it is known who closes it
    try:
        circle = [reply, pieces]
        circle.append(circle)
        del reply, pieces, circle
        assert gone() is not None
        with ExitStack() as held:
            locks = locks_of(model)
            assert len(locks) >= (1 if isinstance(model, Endpoint) else 2)
            for lock in locks:
                held.enter_context(lock)
            collector = threading.Thread(target=collect_twice, daemon=True)
            collector.start()
            collector.join(30)
            assert not collector.is_alive() and gone() is None
    finally:
        gc.enable()


def test_the_next_reply_comes_after_many_left(model, environmentalist):
    if isinstance(model, Endpoint):
        return
    for _ in range(5):
        pieces = iter(model.reply(environmentalist, ["hello!"], Settings(best_of=2, **LONG)))
        next(pieces)
        del pieces
    gc.collect()
    assert "".join(model.reply(environmentalist, ["hello!"], Settings(max_tokens=8, seed=1)))
