"""Replies of a model whose passes are not shared take turns: two at once, the others wait and may stop or leave.

Run: `python -m pytest tests/page/test_page_turns.py`
"""

import threading

import pytest

from page import backend
from page.conversation import Conversation
from page.events import shown
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.models import batched_model, plain_model

SETTINGS = Settings(seed=1, min_tokens=4, max_tokens=12)


@pytest.fixture
def plain(chat_model, chat_tokenizer, monkeypatch) -> LocalModel:
    model = plain_model(chat_model, chat_tokenizer)
    monkeypatch.setattr(backend, "model", model)
    return model


def write(persona, stop=None):
    return backend.write(persona, ["hi!"], SETTINGS, stop or threading.Event())


def test_a_third_reply_waits_until_one_of_two_ends(plain, environmentalist):
    first, second, third = (write(environmentalist) for _ in range(3))
    assert next(first).text and next(second).text
    assert next(third) == next(third) == backend.Progress("", 0, 0.0)
    first.close()
    assert next(third).text and list(second)[-1].text
    assert list(third)[-1].tokens >= 4
    assert backend.running == set()


def test_who_stops_or_leaves_while_waiting_takes_no_turn(plain, environmentalist):
    busy = [write(environmentalist) for _ in range(2)]
    assert all(next(reply).text for reply in busy)
    stop = threading.Event()
    stopped, left = write(environmentalist, stop), write(environmentalist)
    assert (next(stopped).tokens, next(left).tokens) == (0, 0)
    stop.set()
    assert not any(progress.text for progress in stopped)
    left.close()
    assert all(list(reply)[-1].text for reply in busy)
    assert list(write(environmentalist))[-1].text and backend.running == set()


def test_where_passes_are_shared_nobody_waits(
    chat_model, chat_tokenizer, environmentalist, monkeypatch
):
    monkeypatch.setattr(backend, "model", batched_model(chat_model, chat_tokenizer))
    replies = [write(environmentalist) for _ in range(5)]
    assert all(next(reply).text for reply in replies)
    for reply in replies:
        reply.close()


def test_the_memory_meter_leaves_room_for_the_longest_reply(plain, environmentalist, monkeypatch):
    chat, asked = Conversation(environmentalist), []
    real = backend.context_usage
    monkeypatch.setattr(
        backend, "context_usage", lambda *values: asked.append(real(*values)) or (0, 0)
    )
    shown(chat)
    chat.settings = Settings(max_tokens=200)
    shown(chat)
    assert [limit for _, limit in asked] == [512 - 60, 512 - 200]
