"""Who must go when the page has no room for further visitors.

Run: `python -m pytest tests/page/test_sessions.py`
"""

import httpx
import pytest

from page import backend, sessions
from page.blocks import demo
from page.middleware import OPENED
from tests.models import batched_model
from tests.page.visitor import call


@pytest.fixture(scope="module")
def url(page_url, chat_model, chat_tokenizer) -> str:
    backend.use(batched_model(chat_model, chat_tokenizer))
    return page_url


@pytest.fixture
def kept(url, monkeypatch) -> sessions.Sessions:
    call(httpx.Client(base_url=url), "begin")
    holder = demo.app.state_holder
    monkeypatch.setattr(holder, "capacity", 5)
    monkeypatch.setattr(sessions, "MAX_UNUSED", 3)
    monkeypatch.setattr(holder, "session_data", type(holder.session_data)())
    holder.lost.clear()
    return holder


def speak(kept: sessions.Sessions, name: str) -> None:
    state = kept[name]
    block = next(key for key, block in demo.blocks.items() if getattr(block, "stateful", False))
    state[block].ask("hi")
    state[block].pending = None


def test_sessions_in_which_nothing_was_said_go_first_and_nobody_is_told(kept):
    for k in range(4):
        speak(kept, f"used{k}")
    for k in range(500):
        kept[f"forged{k}"]
    assert {f"used{k}" for k in range(4)} <= set(kept.session_data)
    assert len(kept.session_data) <= 4 + 3 + 1 and not kept.lost


def test_who_loses_a_chat_is_told_to_get_it_back_from_the_browser(kept, url):
    for k in range(8):
        speak(kept, f"used{k}")
    assert list(kept.session_data) == [f"used{k}" for k in range(3, 8)]
    answer = call(httpx.Client(base_url=url), "used0")
    assert answer.status_code == 409 and "reload the page" in answer.json()["detail"]
    assert call(httpx.Client(base_url=url), "used7").status_code == 200


def test_a_page_whose_chat_is_unknown_is_told_so_and_a_program_begins_one(kept, url):
    page = httpx.Client(base_url=url, headers={OPENED: "yes"})
    assert call(page, "stranger").status_code == 409
    assert call(httpx.Client(base_url=url), "stranger").status_code == 200
    assert call(page, "stranger").status_code == 200


def test_one_that_waits_for_its_reply_goes_last(kept):
    speak(kept, "writing")
    block = next(key for key, block in demo.blocks.items() if getattr(block, "stateful", False))
    kept["writing"][block].pending = "asked"
    for k in range(8):
        speak(kept, f"used{k}")
    assert "writing" in kept.session_data and len(kept.lost) == 4
