"""What /metrics tells: numbers of replies, never their words, and only where it was asked for.

Run: `python -m pytest tests/page/test_metrics.py`
"""

import threading

import pytest

from page import backend, metrics
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.settings import Settings
from tests.models import batched_model

SETTINGS = Settings(seed=1, min_tokens=3, max_tokens=6)
PERSONA = Persona("a collector", ["i collect zeppelins."])


@pytest.fixture
def watched(chat_model, chat_tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(backend, "model", batched_model(chat_model, chat_tokenizer))
    monkeypatch.setattr(metrics, "_enabled", None)
    metrics.enable(waiting=lambda: 2, sessions=lambda: 7, faults=lambda: 1)


def figures() -> dict[str, float]:
    """Every line of /metrics that is no comment."""
    answer = metrics.answer(None)
    assert answer.status_code == 200 and answer.media_type.startswith("text/plain")
    lines = [line for line in answer.body.decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_page_that_is_not_watched_tells_nothing(monkeypatch):
    monkeypatch.setattr(metrics, "_enabled", None)
    assert metrics.answer(None).status_code == 404
    metrics.reply_ended(metrics.Ended("complete", 1, 0.1, 0.1))


def test_replies_are_counted_by_how_they_ended(watched, monkeypatch):
    def write(stop: threading.Event):
        return backend.write(PERSONA, ["do you fly zeppelins?"], SETTINGS, stop)

    *_, last = write(threading.Event())
    left = write(threading.Event())
    next(left)
    left.close()
    stop = threading.Event()
    stopped = write(stop)
    next(stopped)
    stop.set()
    list(stopped)

    def broken(*_, **__):
        raise RuntimeError("zeppelins")

    monkeypatch.setattr(type(backend.model), "reply", broken)
    with pytest.raises(UserError, match="failed during this reply"):
        list(write(threading.Event()))
    found = figures()
    for how in ("complete", "left", "stopped", "failed"):
        assert found[f'persona_replies_total{{how="{how}"}}'] == 1, how
    assert found["persona_tokens_total"] >= last.tokens >= 3
    assert 1 <= found["persona_first_text_seconds_count"] <= 3
    assert found["persona_tokens_per_second_count"] >= 1
    assert found["persona_waiting"] == 2 and found["persona_sessions"] == 7
    assert found["persona_faults"] == 1 and found["persona_visitors"] == metrics.visitors
    assert "process_resident_memory_bytes" in found
    assert "zeppelins" not in metrics.answer(None).body.decode()
    later = figures()  # what the process uses goes on, what replies did does not
    differs = {name for name in found.keys() | later.keys() if found.get(name) != later.get(name)}
    assert all(name.startswith("process_") for name in differs), "counted twice"
