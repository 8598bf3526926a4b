"""What a screen reader says, and where the focus is, wherever keys alone lead.

Run: `python -m pytest tests/browser/test_heard.py`
"""

import json

import pytest
from playwright.sync_api import expect

from page import backend
from tests.browser.conftest import DESKTOP
from tests.browser.driving import ask, box, button, persona_box, retry, slow, wait_for_replies

HEARD = """() => {
    const region = document.querySelector("#announcer [aria-live]");
    window.heard = [];
    const add = changes => changes.forEach(change => change.addedNodes.forEach(line => heard.push(line.textContent)));
    new MutationObserver(add).observe(region, { childList: true });
}"""
CHATS = [{"id": str(n), "at": n, "title": f"chat {n}", "name": "Zoe", "face": ""} for n in range(3)]


def no_word(persona, turns, settings, stop):
    """In place of `backend._write`: nothing is said before somebody ends it."""
    stop.wait(60)
    yield backend.Progress("", 0, 0.0)


def expect_heard(page, lines: list[str]) -> None:
    """These since HEARD, in this order, and no other: the page tells them a moment after it shows them."""
    page.wait_for_function("count => heard.length >= count", arg=len(lines))
    assert page.evaluate("heard") == lines


def test_both_of_two_who_talk_are_heard(open_page, tiny, monkeypatch):
    page = open_page(tiny)
    page.evaluate(HEARD)
    page.evaluate("window.told = document.querySelector('.duet')")
    slow(tiny, monkeypatch, 0.02)
    button(page, "Let them talk").click()
    page.locator("#duet [data-who=astronaut]").click()
    page.locator('#transcript .them[data-number="1"]').wait_for()
    button(page, "Stop").click()
    page.get_by_text("Ruth and Willow have talked.").wait_for()
    said = page.locator("#transcript .said").evaluate_all(
        "all => all.map(e => [...e.querySelectorAll('.by, p')].map(part => part.textContent).join(': '))"
    )
    expect_heard(page, said[1:])  # but for the greeting
    assert page.evaluate("told.isConnected && told.matches('[role=status]')")
    assert [line.split(":")[0] for line in said[1:5]] == ["Ruth", "Willow", "Ruth", "Willow"]


def test_a_reply_that_is_chosen_is_heard_and_one_that_comes_back_is_not(
    open_page, tiny, monkeypatch
):
    page = open_page(tiny)
    page.evaluate(HEARD)
    ask(page, "hi")
    [first] = wait_for_replies(page, 1)
    expect_heard(page, [f"Willow: {first}"])
    last = retry(page, 2)
    expect_heard(page, [f"Willow: {first}", f"Willow: {last}"])
    button(page, "Former reply").click()
    expect_heard(page, [f"Willow: {said}" for said in (first, last, first)])

    page.reload()
    page.get_by_text("1/2").wait_for()
    page.evaluate(HEARD)
    monkeypatch.setattr(backend, "_write", no_word)
    for begin in (lambda: ask(page, "and you?"), lambda: button(page, "Retry").click()):
        begin()
        page.locator("#growing .dots").wait_for()
        button(page, "Stop").click()
        page.locator("#growing li").wait_for(state="detached")
        page.get_by_text("1/2").wait_for()
    expect_heard(page, [])


def test_edit_and_back_take_the_focus_along_and_glide_only_where_motion_is_wanted(open_page, tiny):
    page = open_page(tiny, viewport={"width": 640, "height": 800}, reduced_motion="reduce")
    button(page, "Edit persona").press("Enter")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    assert page.locator("#persona").bounding_box()["y"] < 500  # at once
    button(page, "Back to the chat").press("Enter")
    expect(box(page)).to_be_focused()
    assert page.locator("#talk").bounding_box()["y"] >= 0


def test_escape_closes_the_panel_for_programs(open_page, tiny):
    page = open_page(tiny, ignore=("404",))  # Gradio's panel asks for an address that is closed
    button(page, "Use this page from a program").click()
    page.locator(".api-docs").wait_for()
    page.keyboard.press("Escape")
    page.locator(".api-docs").wait_for(state="detached")


def with_chats(open_page, model):
    page = open_page(model, **DESKTOP)
    page.evaluate("chats => (localStorage['persona-bot:chats'] = chats)", json.dumps(CHATS))
    button(page, "Chats").click()
    return page


def test_keys_that_forget_a_chat_keep_their_place(open_page, tiny):
    page = with_chats(open_page, tiny)
    crosses = page.locator("#earlier .cross")
    crosses.nth(0).press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#earlier .open").nth(1)).to_be_focused()
    expect(crosses).to_have_text(["×"] * 3)
    for left in (2, 1):
        crosses.nth(left).press("Enter")
        page.keyboard.press("Enter")
        expect(crosses).to_have_count(left)
        expect(crosses.nth(left - 1)).to_be_focused()
    crosses.press("Enter")
    page.keyboard.press("Enter")
    expect(button(page, "Forget everything")).to_be_focused()


def test_the_click_after_a_cross_counts(open_page, tiny):
    page = with_chats(open_page, tiny)
    crosses = page.locator("#earlier .cross")
    crosses.nth(0).click()
    crosses.nth(1).click()
    expect(crosses).to_have_text(["×", "Forget?", "×"])
    crosses.nth(1).click()
    expect(page.locator("#earlier .open b")).to_have_text(["chat 0", "chat 2"])


def test_a_button_that_asks_whether_to_forget_is_called_so(open_page, tiny):
    page = with_chats(open_page, tiny)
    page.evaluate(HEARD)
    cross = page.locator("#earlier .cross").nth(1)
    expect(cross).to_have_accessible_name("Forget “chat 1”")
    cross.press("Enter")
    expect(cross).to_have_accessible_name("Forget? “chat 1”")
    page.keyboard.press("Tab")
    expect(cross).to_have_accessible_name("Forget “chat 1”")
    button(page, "Forget everything").press("Enter")
    button(page, "Sure? Forget everything").wait_for()
    page.keyboard.press("Shift+Tab")
    button(page, "Forget everything").wait_for()
    told = ["Press again to forget “chat 1”.", "Press again to forget everything."]
    expect_heard(page, told)


def test_what_appears_beside_a_chat_is_heard_once(open_page, tiny, monkeypatch):
    page = open_page(tiny)
    page.evaluate(HEARD)
    ask(page, "hi")
    [reply] = wait_for_replies(page, 1)
    persona_box(page).press("End")
    persona_box(page).press_sequentially(" and more")
    page.locator(".notice", has_text="It counts from the next reply.").wait_for()
    button(page, "Edit message 1").click()
    page.locator("[data-editing]").wait_for()
    button(page, "Cancel").click()
    page.locator("[data-editing]").wait_for(state="detached")
    told = [
        f"Willow: {reply}",
        "The persona changed. It counts from the next reply.",
        "Your next message replaces the marked one and all that follows.",
    ]
    expect_heard(page, told)
    region = page.locator("#status [role=status]")
    page.evaluate("window.region = document.querySelector('#status [role=status]')")
    monkeypatch.setattr(backend, "context_usage", lambda *_: (80, 100))
    button(page, "Retry").click()
    expect(region).to_have_text("20 % of its memory left")
    assert page.evaluate("region.isConnected")  # else what is new in it would not be read


@pytest.mark.parametrize(("keys", "place"), [("Shift+ArrowLeft", "2/2"), ("ArrowLeft", "1/2")])
def test_a_selection_that_grows_leaves_the_reply_alone(open_page, tiny, keys, place):
    page = open_page(tiny, ignore=("404",))  # Gradio's panel asks for an address that is closed
    ask(page, "hi")
    wait_for_replies(page, 1)
    retry(page, 2)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(keys)
    page.wait_for_timeout(500)
    expect(page.locator(".alternatives span")).to_have_text(place)
