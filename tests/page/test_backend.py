"""What the page asks of its model besides the words: drafts, and which sentences were used.

Run: `python -m pytest tests/page/test_backend.py`
"""

import html
import re
import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from page import api, backend, events, middleware, opening, why
from page.conversation import Conversation, Exchange
from page.names import SETTINGS
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.models import batched_model, plain_model


@pytest.fixture
def model(chat_model, chat_tokenizer, monkeypatch) -> LocalModel:
    model = batched_model(chat_model, chat_tokenizer)
    monkeypatch.setattr(backend, "model", model)
    monkeypatch.setattr(backend, "ready", threading.Event())
    backend.ready.set()
    return model


def test_the_drafts_of_best_of_become_alternatives_and_the_best_is_shown(model, environmentalist):
    settings = Settings(seed=5, best_of=4, min_tokens=3, max_tokens=12)
    straight = model.reply(environmentalist, ["hi!"], settings)
    list(straight)
    chat = Conversation(environmentalist._replace(greeting=""))
    chat.ask("hi!")
    exchange = chat.claim()
    for progress in backend.write(chat.persona, chat.turns(), settings, threading.Event()):
        exchange.growing = progress.text
    chat.finish(exchange, progress.drafts)
    assert exchange.replies == list(dict.fromkeys(straight.drafts))
    assert (len(exchange.replies), exchange.shown, exchange.reply) == (4, 0, straight.text)


def test_a_draft_that_came_twice_is_one_alternative(environmentalist):
    chat = Conversation(environmentalist)
    chat.ask("hi!")
    exchange = chat.claim()
    exchange.growing = "a"
    chat.finish(exchange, ["a", "b", "b", "a", "c"])
    assert exchange.replies == ["a", "b", "c"]


def answered(persona) -> Conversation:
    return Conversation(persona, [Exchange("hi", persona, ["hello!"])])


def test_where_nobody_can_tell_why_the_first_reply_says_so(model, environmentalist, monkeypatch):
    chat = answered(environmentalist)
    monkeypatch.setattr(backend, "model", SimpleNamespace(device_label="another machine"))
    assert "cannot be told where the model runs on another machine." in why.found(chat)
    monkeypatch.setattr(backend, "model", SimpleNamespace(device_label="GPU", backend=None))
    monkeypatch.setattr(backend, "spaces", SimpleNamespace())
    assert "a GPU would have to be borrowed a second time" in why.found(chat)
    chat.exchanges *= 2  # said once
    assert why.found(chat) == ""


@pytest.mark.parametrize(
    ("make", "said"), [(plain_model, ", one reply at a time"), (batched_model, "")]
)
def test_a_model_that_writes_in_turn_says_so(chat_model, chat_tokenizer, model, make, said):
    backend.use(make(chat_model, chat_tokenizer))
    *_, (line, _) = opening.model_arrives(answered(Persona("", ("i am ann.",))))
    words = re.sub("<[^>]*>", "", line)
    assert words == f"Model: tiny on CPU{said}"


def test_a_borrowed_gpu_that_writes_nothing_is_one_sentence(model, environmentalist, monkeypatch):
    monkeypatch.setattr(backend, "model", SimpleNamespace(device_label="GPU"))
    monkeypatch.setattr(backend, "_write_on_borrowed_gpu", lambda *_: iter(()))
    with pytest.raises(gr.Error, match="gave no reply; try again"):
        list(api.answer(["i am ann."], ["hi"]))
    chat, warned = Conversation(environmentalist), []
    monkeypatch.setattr(gr, "Warning", lambda told, **_: warned.append(told))
    chat.ask("hi!")
    list(events.reply(chat, *(getattr(Settings(), name) for name in SETTINGS)))
    assert warned == ["The model gave no reply; try again."] and chat.pending is None


def test_what_was_used_is_asked_once_for_each_reply(model, environmentalist, monkeypatch):
    asked, chat = [], answered(environmentalist)
    monkeypatch.setattr(backend, "used", lambda p, turns, reply: asked.append(reply) or ["<b>"])
    assert "<li>&lt;b&gt;</li>" in why.found(chat) == why.found(chat)
    assert asked == ["hello!"]


@pytest.fixture
def opened_by_others(monkeypatch):
    """Opens the page as who launches or mounts it does; returns once the model is there or will not come."""
    for name in ("ready", "promised"):
        monkeypatch.setattr(backend, name, threading.Event())
    monkeypatch.setattr(backend, "model", None)
    monkeypatch.setattr(backend, "failure", "")

    def open_page() -> None:
        backend.load_unless_promised()
        assert backend.ready.wait(60)

    return open_page


def breaks(*_):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("setting", "value", "load", "why"),
    [
        ("MODEL_ID", "/nope/<x>", None, "'/nope/<x>'"),
        ("MODEL_ENDPOINT", "nowhere", None, "--endpoint (or MODEL_ENDPOINT) is no address"),
        ("MODEL_ID", "", breaks, "The model failed to load (ZeroDivisionError); the page's log"),
    ],
)
def test_a_model_that_cannot_load_is_told_by_the_page_its_health_and_its_api(
    opened_by_others, environmentalist, monkeypatch, setting, value, load, why
):
    monkeypatch.setenv(setting, value)
    if load:
        monkeypatch.setattr(backend, "load_model", load)
    opened_by_others()
    health = middleware.health(None)
    assert (health.status_code, health.body) == (503, b'{"status":"failed"}')
    *_, (line, _) = opening.model_arrives(answered(environmentalist))
    assert why in html.unescape(line) and "<x>" not in line and "data-loading" not in line
    with pytest.raises(gr.Error) as told:
        list(api.answer(["i am ann."], ["hi"]))
    assert why in told.value.message


def test_who_opens_the_page_otherwise_chooses_model_and_endpoint_by_the_environment(
    opened_by_others, monkeypatch
):
    monkeypatch.setenv("MODEL_ID", "mine")
    monkeypatch.setenv("MODEL_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(backend, "load_model", lambda *chosen: SimpleNamespace(chosen=chosen))
    opened_by_others()
    assert backend.model.chosen == ("mine", None, "http://127.0.0.1:9")
