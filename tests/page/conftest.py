"""The running page with a tiny model, for the tests that call it over HTTP."""

import copy
import functools
import time

import pytest
from gradio_client import Client

from page import backend
from persona_bot.replies.local import LocalModel
from tests.models import batched_model


@pytest.fixture(scope="module")
def model(chat_model, chat_tokenizer) -> LocalModel:
    """A tiny model of our own, so that a test may slow it down or break it."""
    return batched_model(copy.deepcopy(chat_model), chat_tokenizer)


@pytest.fixture(scope="module")
def url(model, page_url) -> str:
    backend.use(model)
    return page_url


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


@pytest.fixture
def slowed(model, monkeypatch):
    """Every token takes at least this many seconds."""
    monkeypatch.setattr(model.backend.model, "forward", delayed(model.backend.model.forward, 0.05))


def delayed(forward, seconds: float):
    @functools.wraps(forward)
    def slow(*args, **options):
        time.sleep(seconds)
        return forward(*args, **options)

    return slow
