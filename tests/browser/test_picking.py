"""Who is picked, and what they are called, when a hand is quicker than the server.

Run: `python -m pytest tests/browser/test_picking.py`
"""

import threading

from playwright.sync_api import expect

from page import events
from page.conversation import Conversation
from page.events import PRESETS
from persona_bot.persona import persona_text
from tests.browser.driving import ask, button, persona_box, wait_for_replies

MINE = "my name is zoe and i sell maps.\ni love rain."


def held(monkeypatch) -> threading.Event:
    """Answers that show a persona anew wait for the event."""
    go, shown = threading.Event(), events.shown_persona
    monkeypatch.setattr(events, "shown_persona", lambda *given: go.wait(60) and shown(*given))
    return go


def name_box(page):
    return page.get_by_label("Name", exact=True)


def test_the_last_of_two_cards_that_are_pressed_quickly_is_spoken_to(open_page, tiny, monkeypatch):
    page = open_page(tiny)
    go = held(monkeypatch)
    for who in ("soldier", "vampire", "astronaut"):
        page.locator(f"#cards [data-who={who}]").click()
    go.set()
    ruth = PRESETS["astronaut"]
    expect(name_box(page)).to_have_value(ruth.name)
    expect(persona_box(page)).to_have_value(persona_text(ruth))
    page.get_by_role("heading", name="Say hello to Ruth").wait_for()
    expect(page.locator("#cards [aria-pressed=true]")).to_have_attribute("data-who", "astronaut")
    ask(page, "hi")
    wait_for_replies(page, 1)
    expect(page.locator(".them .by")).to_have_text(["Ruth", "Ruth"])
    expect(page.locator("#own-cards .card")).to_have_count(0)


def test_what_an_answer_writes_into_the_boxes_comes_back_as_nobodys_words(
    open_page, tiny, monkeypatch
):
    """Else the card that was pressed first gives its name to the second one's persona."""
    heard: list[object] = []
    monkeypatch.setattr(Conversation, "rename", lambda chat, **given: heard.append(given["name"]))
    monkeypatch.setattr(Conversation, "rewrite", lambda chat, text, presets: heard.append(text))
    page = open_page(tiny)
    button(page, "Tom, soldier").click()
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    tom = PRESETS["soldier"].name
    expect(name_box(page)).to_have_value(tom)
    name_box(page).press("End")
    name_box(page).type("!")
    expect(name_box(page)).to_have_value(f"{tom}!")
    persona_box(page).fill(MINE)
    page.get_by_text("2/12 sentences, one a line").wait_for()
    # a name that was typed is told once more behind a text, which must not take it away
    assert {text for text in heard if text is not None} == {f"{tom}!", MINE}


def test_a_name_that_is_typed_before_the_text_is_answered_stays(open_page, tiny, monkeypatch):
    """A busy server answers the persona's text after the name was typed, which that answer would have emptied."""
    page = open_page(tiny)
    go = held(monkeypatch)
    persona_box(page).fill(MINE)
    name_box(page).fill("Zoe, map seller")
    page.get_by_role("heading", name="Zoe, map seller", exact=True).wait_for()
    go.set()
    page.get_by_text("2/12 sentences, one a line").wait_for()  # the text's answer
    ask(page, "hi")
    wait_for_replies(page, 1)
    expect(name_box(page)).to_have_value("Zoe, map seller")
    expect(page.get_by_role("heading", name="Zoe, map seller", exact=True)).to_be_visible()


def test_a_name_and_a_face_that_are_chosen_first_stay_when_the_text_is_written(open_page, tiny):
    page = open_page(tiny)
    text = persona_box(page).input_value()
    name_box(page).fill("Gwendolyn, beekeeper")
    page.get_by_role("heading", name="Gwendolyn, beekeeper").wait_for()
    button(page, "Change the face").click()
    page.locator('#faces [data-face="🐝"]').click()
    page.locator("#header [href='#face-1f41d']").wait_for(state="attached")
    persona_box(page).fill("")
    persona_box(page).press_sequentially("i keep bees.")
    page.get_by_text("1/12 sentences, one a line").wait_for()
    page.wait_for_function("() => document.querySelector('.who').dataset.link.includes('bees')")

    def expect_gwendolyn() -> None:
        expect(name_box(page)).to_have_value("Gwendolyn, beekeeper")
        page.get_by_role("heading", name="Gwendolyn, beekeeper").wait_for()
        page.locator("#header [href='#face-1f41d']").wait_for(state="attached")

    expect_gwendolyn()
    page.reload()
    expect(persona_box(page)).to_have_value("i keep bees.")
    persona_box(page).fill("i keep wasps.")
    page.wait_for_function("() => document.querySelector('.who').dataset.link.includes('wasps')")
    expect_gwendolyn()
    button(page, "Tom, soldier").click()  # another persona is opened: nothing of it stays
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    persona_box(page).fill(text)
    expect(name_box(page)).to_have_value(PRESETS["environmentalist"].name)


def test_of_all_cards_the_one_that_is_spoken_to_is_pressed(open_page, tiny):
    page = open_page(tiny)
    pressed = page.locator(".card[aria-pressed=true]")
    own = page.locator("#own-cards .card")
    expect(pressed).to_have_accessible_name(PRESETS["environmentalist"].name)
    persona_box(page).fill(MINE)
    name_box(page).fill("Zoe")
    expect(pressed).to_have_text("Zoeyours")
    button(page, "Tom, soldier").click()
    expect(pressed).to_have_accessible_name("Tom, soldier")
    expect(own).to_have_attribute("aria-pressed", "false")
    own.press("Enter")
    expect(pressed).to_have_text("Zoeyours")
    expect(own).to_be_focused()
    button(page, "Tom, soldier").click()
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    persona_box(page).press("End")
    persona_box(page).press_sequentially(" and parrots")
    expect(pressed).to_have_count(1)  # one's own Tom
    expect(own.first).to_have_attribute("aria-pressed", "true")
