"""Nothing is lost: what a browser keeps through a reload, a lost connection and a server that went away.

Run: `python -m pytest tests/browser/test_kept.py`
"""

import json
import os
import subprocess
import sys
import time

from page import backend
from page.events import PRESETS
from persona_bot.persona import persona_text
from tests import children
from tests.browser.conftest import DESKTOP
from tests.browser.driving import (
    ask,
    box,
    button,
    messages,
    persona_box,
    replies,
    retry,
    wait_for_replies,
    wait_for_text,
)
from tests.browser.line import Line
from tests.page.test_start import ROOT, free_port, wait_until_ready  # noqa: F401

MINE = "my name is zoe and i sell maps.\ni love rain."


def number_box(page):
    return page.get_by_label("Seed")


def make_a_chat(page) -> list[str]:
    """A persona of one's own, an exchange with two replies, a setting, a draft; returns the replies that are shown."""
    persona_box(page).fill(MINE)
    page.get_by_label("Name", exact=True).fill("Zoe, map seller")
    page.get_by_role("heading", name="Zoe, map seller", exact=True).wait_for()
    ask(page, "hi")
    wait_for_replies(page, 1)
    retry(page, 2)
    button(page, "Settings ▼").click()
    page.get_by_label("Temperature").first.fill("1.1")
    page.get_by_label("Temperature").first.press("Tab")
    box(page).fill("a draft")
    page.wait_for_function(
        "() => JSON.parse(localStorage['persona-bot:settings'] ?? '{}').temperature == 1.1"
    )
    return replies(page)


def check_the_chat(page, shown: list[str]) -> None:
    wait_for_text(page, "#composer textarea", "a draft")
    assert replies(page) == shown and messages(page) == ["hi"]
    assert page.locator(".alternatives span").inner_text() == "2/2"
    assert persona_box(page).input_value() == MINE
    assert page.get_by_label("Name", exact=True).input_value() == "Zoe, map seller"
    button(page, "Settings ▼").click()
    assert page.get_by_label("Temperature").first.input_value() == "1.1"
    assert number_box(page).input_value() == ""


def test_a_reload_the_back_button_and_a_new_tab_keep_everything(open_page, tiny, page_url):
    page = open_page(tiny)
    shown = make_a_chat(page)
    page.reload()
    check_the_chat(page, shown)
    page.goto("about:blank")
    page.go_back()
    check_the_chat(page, shown)
    other = page.context.new_page()
    other.goto(page_url)
    check_the_chat(other, shown)
    ask(other, "in the new tab")
    wait_for_replies(other, 2)
    button(other, "Chats").click()
    assert other.locator("#earlier .open b").all_inner_texts()[:2] == ["hi", "hi"]
    page.reload()
    check_the_chat(page, shown)


def long_reply(persona, turns, settings, stop):
    for count in range(1, 300):
        time.sleep(0.1)
        if stop.is_set():
            return
        yield backend.Progress("word " * count, count, 1.0)


def test_a_connection_lost_in_the_middle_of_a_reply_loses_nothing(
    open_page, tiny, page_url, monkeypatch
):
    line = Line(int(page_url.rsplit(":", 1)[1].strip("/")))
    page = open_page(tiny, url=line.url, ignore=("ERR_", "fetch", "network", "Connection"))
    persona_box(page).fill(MINE)
    ask(page, "first")
    first = wait_for_replies(page, 1)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "write", long_reply)
        ask(page, "second")
        page.locator("[data-writing]").wait_for()
        box(page).fill("are you there?")
        page.wait_for_function(
            "() => document.querySelector('[data-writing]').textContent.length > 20"
        )
        with page.expect_navigation(timeout=60_000):  # Gradio opens its page anew
            line.cut()
            page.wait_for_timeout(2500)
            line.mend()
    page.wait_for_function("() => document.querySelectorAll('.you').length == 2")
    wait_for_text(page, "#composer textarea", "are you there?")
    assert messages(page) == ["first", "second"]
    assert replies(page)[0] == first[0] and replies(page)[1].startswith("word word")
    assert persona_box(page).input_value() == MINE
    ask(page, "now?")
    wait_for_replies(page, 3)
    line.close()


def test_a_server_that_is_killed_and_started_again_has_everything_again(
    browser,
    chat_folder,
    free_port,  # noqa: F811
):
    url = f"http://127.0.0.1:{free_port}/"
    command = [sys.executable, "app.py", "--device", "cpu", "--model", str(chat_folder)]
    command += ["--host", "127.0.0.1", "--port", str(free_port)]
    options = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}}
    options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    page = browser.new_context(**DESKTOP).new_page()
    page.set_default_timeout(60_000)
    with children.program(command, **options):
        wait_until_ready(url)
        page.goto(url)
        page.locator(".model b").wait_for()
        shown = make_a_chat(page)
    with children.program(command, **options):
        wait_until_ready(url)
        page.reload()
        check_the_chat(page, shown)
        ask(page, "still there?")
        wait_for_replies(page, 2)
    page.context.close()


def test_earlier_chats_and_own_personas_open_again_and_can_be_forgotten(open_page, tiny):
    page = open_page(tiny)
    shown = make_a_chat(page)
    button(page, "New chat").click()
    page.get_by_role("heading", name="Say hello to Zoe").wait_for()
    button(page, "Tom, soldier").click()
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    button(page, "Chats").click()
    page.locator("#earlier .open").first.click()
    page.get_by_role("heading", name="Zoe, map seller", exact=True).wait_for()
    assert replies(page) == shown and persona_box(page).input_value() == MINE
    button(page, "Tom, soldier").click()
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    page.locator("#own-cards .card").click()
    page.get_by_role("heading", name="Say hello to Zoe").wait_for()
    assert persona_box(page).input_value() == MINE and box(page).input_value() == "a draft"

    button(page, "Chats").click()
    button(page, "Forget everything").click()
    button(page, "Sure? Forget everything").click()
    page.get_by_role("heading", name="Say hello to Willow").wait_for()
    assert persona_box(page).input_value() == persona_text(PRESETS["environmentalist"])
    assert box(page).input_value() == "" and page.locator("#own-cards .card").count() == 0
    stored = page.evaluate("Object.keys(localStorage).filter(k => k.includes(':chat'))")
    assert stored == []


def test_one_click_never_destroys_what_was_written(open_page, tiny):
    page = open_page(tiny)
    persona_box(page).fill(MINE)
    page.get_by_role("heading", name="Say hello to your persona").wait_for()
    box(page).fill("a draft")
    button(page, "Random, somebody new").click()
    page.get_by_role("heading", name="Say hello to your persona").wait_for(state="detached")
    drawn = persona_box(page).input_value()
    button(page, "Tom, soldier").click()
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    button(page, "Undo").click()
    wait_for_text(page, "#persona-text textarea", drawn)
    button(page, "Undo").click()
    wait_for_text(page, "#persona-text textarea", MINE)
    assert box(page).input_value() == "a draft"
    box(page).press("Enter")
    wait_for_replies(page, 1)
    box(page).fill("another draft")
    for leave in (lambda: button(page, "Cancel").click(), lambda: box(page).press("Escape")):
        button(page, "Edit message 1").click()
        wait_for_text(page, "#composer textarea", "a draft")
        leave()
        wait_for_text(page, "#composer textarea", "another draft")
    button(page, "New chat").click()
    page.get_by_role("heading", name="Say hello to your persona").wait_for()
    button(page, "Undo").click()
    page.wait_for_function("() => document.querySelectorAll('.you').length == 1")
    assert box(page).input_value() == "another draft"


def test_a_broken_store_gets_one_sentence_and_the_page_works(open_page, tiny, page_url):
    markup = "<img src=x onerror=alert(1)>"
    persona = {"name": markup, "face": markup[:16], "sentences": [markup]}
    bad = {
        "persona_bot": 1,
        "persona": persona,
        "exchanges": [{"message": markup, "replies": [markup], "shown": 7}],
    }
    page = open_page(tiny)
    stored = {
        "now:record": bad,
        "now:draft": 7,
        "chats": [{"id": "x", "at": "never", "title": markup, "name": markup, "face": markup}],
        "personas": [{"id": "x", "persona": persona}],
        "settings": {"temperature": "hot"},
    }
    for key, value in stored.items():
        page.evaluate(
            "([k, v]) => (localStorage['persona-bot:' + k] = v)", [key, json.dumps(value)]
        )
    page.evaluate("localStorage['persona-bot:chat:x'] = '{'")
    other = page.context.new_page()
    other.goto(page_url)
    other.get_by_text("The chat that this browser kept cannot be used").wait_for()
    button(other, "Chats").click()
    other.locator("#earlier .open").first.click()
    damaged = "That is no conversation of this page, or it is damaged; nothing was changed."
    other.get_by_text(damaged, exact=True).wait_for()
    assert other.locator("#page img, .cards img, #earlier img").count() == 0
    ask(other, "hi")
    wait_for_replies(other, 1)
