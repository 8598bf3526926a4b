"""Nothing is lost: what a browser keeps through a reload, a lost connection and a server that went away.

Run: `python -m pytest tests/browser/test_kept.py`
"""

import json
import os
import subprocess
import sys

from playwright.sync_api import expect

from page import backend
from page.blocks import demo
from page.events import PRESETS
from persona_bot.persona import persona_text
from tests import children
from tests.browser.conftest import DESKTOP
from tests.browser.driving import (
    ask,
    box,
    button,
    expect_messages,
    expect_replies,
    long_reply,
    persona_box,
    replies,
    retry,
    unanswered,
    wait_for_replies,
)
from tests.browser.line import Line
from tests.browser.test_heard import no_word
from tests.browser.test_passing_on import bring, download
from tests.browser.test_talking import let_them_talk
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
    button(page, "Settings").click()
    page.get_by_label("Temperature").first.fill("1.1")
    page.get_by_label("Temperature").first.press("Tab")
    box(page).fill("a draft")
    wait_for_kept(page, "settings", '"temperature":1.1')
    wait_for_kept(page, "now:draft", "a draft")
    return replies(page)


def wait_for_kept(page, key: str, text: str) -> None:
    page.wait_for_function(
        "([key, text]) => localStorage[`persona-bot:${key}`]?.includes(text)", arg=[key, text]
    )


def check_the_chat(page, shown: list[str]) -> None:
    expect(box(page)).to_have_value("a draft")
    expect_replies(page, shown)
    expect_messages(page, ["hi"])
    expect(page.locator(".alternatives span")).to_have_text("2/2")
    expect(persona_box(page)).to_have_value(MINE)
    expect(page.get_by_label("Name", exact=True)).to_have_value("Zoe, map seller")
    button(page, "Settings").click()
    expect(page.get_by_label("Temperature").first).to_have_value("1.1")
    expect(number_box(page)).to_have_value("")


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
    for place in (0, 1):
        expect(other.locator("#earlier .open b").nth(place)).to_have_text("hi")
    page.reload()
    check_the_chat(page, shown)


def test_a_text_that_was_typed_for_one_persona_does_not_come_back_for_the_next(open_page, tiny):
    page = open_page(tiny)
    persona_box(page).fill(MINE)
    wait_for_kept(page, "now:record", "i sell maps")
    page.locator(".card", has_text="Jack").click()
    wait_for_kept(page, "now:record", "Jack")
    text = persona_box(page).input_value()
    page.reload()
    page.get_by_role("heading", name="Jack, private detective").wait_for()
    expect(persona_box(page)).to_have_value(text)


def test_what_is_chosen_right_after_settings_open_stays_on_a_slow_machine(open_page, tiny):
    page = open_page(tiny)
    page.evaluate("window.requestAnimationFrame = draw => setTimeout(draw, 1000, 0)")  # late frames
    button(page, "Settings").click()
    page.get_by_label("Temperature").first.fill("1.1")
    number_box(page).fill("7")
    number_box(page).press("Tab")
    page.wait_for_timeout(1500)  # the frame has come
    expect(page.get_by_label("Temperature").first).to_have_value("1.1")
    expect(number_box(page)).to_have_value("7")
    wait_for_kept(page, "settings", '"temperature":1.1')
    wait_for_kept(page, "settings", '"seed":7')


def test_the_values_of_the_start_never_take_the_place_of_kept_settings(open_page, tiny, page_url):
    kept = {"temperature": 1.1, "top_p": 0.5, "seed": 7}
    page = open_page(tiny).context.new_page()
    page.add_init_script(f"localStorage['persona-bot:settings'] = {json.dumps(json.dumps(kept))}")
    with unanswered(page):
        page.goto(page_url)
        button(page, "Send").wait_for()
        number_box(page).wait_for(state="attached")
        page.wait_for_timeout(500)
        assert json.loads(page.evaluate("localStorage['persona-bot:settings']")) == kept
    button(page, "Settings").click()
    expect(page.get_by_label("Temperature").first).to_have_value("1.1")
    expect(number_box(page)).to_have_value("7")


def test_a_connection_lost_in_the_middle_of_a_reply_loses_nothing(
    open_page, tiny, page_url, monkeypatch
):
    line = Line(int(page_url.rsplit(":", 1)[1].strip("/")))
    page = open_page(tiny, url=line.url, ignore=("ERR_", "fetch", "network", "Connection"))
    persona_box(page).fill(MINE)
    ask(page, "first")
    first = wait_for_replies(page, 1)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_write", long_reply)
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
    expect(box(page)).to_have_value("are you there?")
    expect_messages(page, ["first", "second"])
    again = wait_for_replies(page, 2)
    assert again[0] == first[0] and again[1].startswith("word word")
    expect(persona_box(page)).to_have_value(MINE)
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


def test_a_server_that_was_started_anew_under_an_idle_page_gets_its_chat_again(open_page, tiny):
    page = open_page(tiny, ignore=("409 (Conflict)",))  # its answer
    ask(page, "first")
    first = wait_for_replies(page, 1)
    for go_on in (lambda: ask(page, "second"), lambda: persona_box(page).fill(MINE)):
        demo.app.state_holder.session_data.clear()
        with page.expect_navigation():
            go_on()
        expect_messages(page, ["first"])
        expect_replies(page, first)
        expect(box(page)).to_have_value("second")
    expect(persona_box(page)).to_have_value(MINE)
    box(page).press("Enter")
    wait_for_replies(page, 2)
    expect_messages(page, ["first", "second"])


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
    expect_replies(page, shown)
    expect(persona_box(page)).to_have_value(MINE)
    button(page, "Tom, soldier").click()
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    page.locator("#own-cards .card").click()
    page.get_by_role("heading", name="Say hello to Zoe").wait_for()
    expect(persona_box(page)).to_have_value(MINE)
    expect(box(page)).to_have_value("a draft")

    button(page, "Chats").click()
    button(page, "Forget everything").click()
    button(page, "Sure? Forget everything").click()
    page.get_by_role("heading", name="Say hello to Willow").wait_for()
    expect(persona_box(page)).to_have_value(persona_text(PRESETS["environmentalist"]))
    expect(box(page)).to_have_value("")
    expect(page.locator("#own-cards .card")).to_have_count(0)
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
    expect(persona_box(page)).to_have_value(drawn)
    button(page, "Undo").click()
    expect(persona_box(page)).to_have_value(MINE)
    expect(box(page)).to_have_value("a draft")
    box(page).press("Enter")
    wait_for_replies(page, 1)
    box(page).fill("another draft")
    for leave in (lambda: button(page, "Cancel").click(), lambda: box(page).press("Escape")):
        button(page, "Edit message 1").click()
        expect(box(page)).to_have_value("a draft")
        leave()
        expect(box(page)).to_have_value("another draft")
    button(page, "New chat").click()
    page.get_by_role("heading", name="Say hello to your persona").wait_for()
    button(page, "Undo").click()
    expect(page.locator(".you")).to_have_count(1)
    expect(box(page)).to_have_value("another draft")


def test_a_draft_stays_when_a_chat_is_opened_that_ended_before_its_reply(
    open_page, tiny, monkeypatch
):
    page = open_page(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_write", no_word)
        ask(page, "without an answer")
        wait_for_kept(page, "now:record", "without an answer")
        page.locator("#growing .dots").wait_for()
        button(page, "New chat").click()
        page.locator(".invitation").wait_for()
    box(page).fill("a draft")
    button(page, "Chats").click()
    page.locator("#earlier .open").click()
    expect(box(page)).to_have_value("without an answer a draft")

    ask(page, "hi")
    wait_for_replies(page, 1)
    box(page).fill("a draft")
    file = download(page, "Download as a file to open here again").path().read_text()
    unsent = json.loads(file)
    unsent["exchanges"].append({"message": "unsent", "replies": [], "shown": 0})
    button(page, "Edit message 1").click()
    expect(box(page)).to_have_value("hi")
    bring(page, "chat.json", json.dumps(unsent).encode())
    expect(box(page)).to_have_value("unsent a draft")
    page.wait_for_timeout(300)  # the edit has ended, too
    expect(box(page)).to_have_value("unsent a draft")


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
    expect(other.locator("#page img, .cards img, #earlier img")).to_have_count(0)
    ask(other, "hi")
    wait_for_replies(other, 1)


def test_own_personas_stay_when_another_one_is_written_in_a_new_chat(open_page, tiny):
    page = open_page(tiny)
    cards = page.locator("#own-cards .card")
    persona_box(page).fill(MINE)
    expect(cards).to_have_count(1)
    button(page, "New chat").click()
    persona_box(page).fill("i bake.")
    expect(cards).to_have_count(2)
    button(page, "Tom, soldier").click()
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    persona_box(page).press("End")
    persona_box(page).press("x")
    expect(cards).to_have_count(3)
    persona_box(page).press("Backspace")  # Tom again: no twin of his
    expect(cards).to_have_count(2)
    cards.nth(1).click()
    expect(persona_box(page)).to_have_value(MINE)


def test_what_a_second_persona_was_saying_is_nobodys_reply_after_a_reload(
    open_page, tiny, monkeypatch
):
    page = open_page(tiny)
    ask(page, "hi")
    shown = wait_for_replies(page, 1)
    monkeypatch.setattr(backend, "_write", long_reply)
    let_them_talk(page, "soldier")
    page.locator("#growing .you [data-writing]").wait_for()
    page.reload()
    page.locator("#transcript .you").first.wait_for()
    expect_replies(page, shown)


def test_a_browser_that_keeps_nothing_says_so(open_page, tiny):
    page = open_page(tiny)
    page.add_init_script("Storage.prototype.setItem = () => { throw new Error('forbidden') }")
    page.reload()
    page.get_by_text(tiny.name).wait_for()
    button(page, "Chats").click()
    page.get_by_text("This browser forbids pages to keep anything").wait_for()
    expect(page.get_by_text("Kept in this browser only")).to_be_hidden()


def test_a_part_of_a_whole_number_is_rounded(open_page, tiny):
    page = open_page(tiny)
    button(page, "Settings").click()
    page.get_by_label("Top-k").first.fill("3.7")
    page.get_by_label("Top-k").first.press("Tab")
    wait_for_kept(page, "settings", '"top_k":3.7')
    ask(page, "hi")
    wait_for_replies(page, 1)
