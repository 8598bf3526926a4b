"""Two personas that talk, and why a reply came about, in a real Chromium.

Run: `python -m pytest tests/browser/test_talking.py`
"""

from playwright.sync_api import expect

from page import backend
from tests.browser.conftest import DESKTOP, PHONE, SCREENSHOTS
from tests.browser.driving import ask, box, button, long_reply, persona_box, slow, wait_for_replies


def let_them_talk(page, who: str) -> None:
    button(page, "Let them talk").click()
    page.locator(f"#duet [data-who={who}]").click()


def test_two_personas_talk_until_a_visitor_steps_in(open_page, tiny, monkeypatch):
    page = open_page(tiny)
    slow(tiny, monkeypatch, 0.05)
    let_them_talk(page, "astronaut")
    page.locator('#transcript .them[data-number="1"]').wait_for()
    page.screenshot(path=SCREENSHOTS / "desktop-light-talking.png")
    box(page).fill("hello you two")
    box(page).press("Enter")
    page.get_by_text("Ruth and Willow have talked.").wait_for()
    page.locator(".you", has_text="hello you two").wait_for()
    button(page, "Send").wait_for()
    names = page.locator("#transcript .you .by").all_inner_texts()
    assert names[:2] == ["Ruth", "Ruth"] and names[-1] == "You" and names.count("You") == 1
    expect(box(page)).to_have_value("")


def test_stop_ends_the_talk(open_page, tiny, monkeypatch):
    page = open_page(tiny, **PHONE)
    monkeypatch.setattr(backend, "_write", long_reply)
    let_them_talk(page, "soldier")
    page.locator("#growing .you [data-writing]").wait_for()  # a line streams in the visitor's place
    button(page, "Stop").click()
    page.get_by_text("Tom and Willow have talked.").wait_for()
    button(page, "Send").wait_for()
    expect(page.locator("#transcript .you")).to_have_count(0)
    page.wait_for_timeout(500)  # nobody goes on by themselves
    expect(page.locator("#transcript .you")).to_have_count(0)
    expect(box(page)).to_have_value("")


def test_the_sentences_that_a_reply_used_are_marked_under_it_and_in_the_text_box(
    open_page, tiny, monkeypatch
):
    monkeypatch.setattr(backend, "used", lambda persona, *_: list(persona.sentences[1:3]))
    page = open_page(tiny, **DESKTOP)
    ask(page, "hello")
    wait_for_replies(page, 1)
    page.locator(".why summary").click()
    marked = persona_box(page).input_value().split("\n")[1:3]
    expect(page.locator("#why li")).to_have_text(marked, use_inner_text=True)
    expect(page.locator("#why li").last).to_be_in_viewport(ratio=1)
    expect(page.locator("#marks mark")).to_have_text(marked)
    page.screenshot(path=SCREENSHOTS / "desktop-light-why.png")
    page.mouse.move(0, 0)  # what is pointed at is marked again
    persona_box(page).press("End")
    persona_box(page).type(" and more")
    page.locator("#marks").wait_for(state="detached")

    monkeypatch.setattr(backend, "used", lambda *_: [])  # it used none: nothing is said
    ask(page, "and you?")
    wait_for_replies(page, 2)
    page.locator("#why summary").wait_for(state="detached")
