"""Several tabs, addresses and the back button: each tab keeps its own, and none undoes what another has.

Run: `python -m pytest tests/browser/test_tabs.py`
"""

from playwright.sync_api import expect

from page.events import PRESETS
from persona_bot.persona import persona_text
from tests.browser.driving import (
    ask,
    box,
    button,
    expect_messages,
    expect_replies,
    persona_box,
    wait_for_replies,
)
from tests.browser.test_kept import MINE, wait_for_kept


def test_back_and_forward_lead_to_the_chats_of_their_addresses(open_page, tiny, page_url):
    page = open_page(tiny)
    ask(page, "to willow")
    willow = wait_for_replies(page, 1)
    box(page).fill("a draft")
    wait_for_kept(page, "now:draft", "a draft")
    page.goto(page_url + "?persona=soldier")
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    expect(box(page)).to_have_value("a draft")
    ask(page, "to tom")
    tom = wait_for_replies(page, 1)
    page.go_back()
    page.get_by_role("heading", name="Willow, environmentalist").wait_for()
    expect_replies(page, willow)
    expect(box(page)).to_have_value("a draft")
    page.go_forward()
    page.get_by_role("heading", name="Tom, soldier").wait_for()
    expect_replies(page, tom)


def test_a_tab_and_its_double_keep_both_what_is_said_in_them(open_page, tiny):
    page = open_page(tiny)
    ask(page, "hi")
    wait_for_replies(page, 1)
    with page.context.expect_page() as opened:  # like a tab that is duplicated, with its storage
        page.evaluate("window.open(location.href)")
    double = opened.value
    for tab, count in ((double, 2), (page, 2), (double, 3), (page, 3)):
        wait_for_replies(tab, count - 1)
        ask(tab, f"{count} in the {'double' if tab is double else 'first'}")
        wait_for_replies(tab, count)
    page.reload()
    expect_messages(page, ["hi", "2 in the first", "3 in the first"])
    for place, name in enumerate(("first", "double")):
        button(page, "Chats").click()
        expect(page.locator("#earlier .open")).to_have_count(2)
        page.locator("#earlier .open").nth(place).click()
        expect_messages(page, ["hi", f"2 in the {name}", f"3 in the {name}"])


def test_settings_of_two_tabs_do_not_undo_each_other(open_page, tiny, page_url):
    page = open_page(tiny)
    other = page.context.new_page()
    other.goto(page_url)
    other.get_by_text(tiny.name).wait_for()
    wait_for_kept(other, "settings", '"temperature"')
    for tab, label, value in ((page, "Temperature", "1.1"), (other, "Top-k", "7")):
        button(tab, "Settings").click()
        tab.get_by_label(label).first.fill(value)
        tab.get_by_label(label).first.press("Tab")
        wait_for_kept(tab, "settings", f":{value}")
    wait_for_kept(page, "settings", '"temperature":1.1')


def test_a_draft_stays_when_a_link_is_opened_in_its_tab(open_page, tiny, page_url):
    page = open_page(tiny)
    box(page).fill("a draft")
    wait_for_kept(page, "now:draft", "a draft")
    for link in ("?persona=soldier", "#chat=abc"):
        page.goto(page_url + link)
        page.get_by_text(tiny.name).wait_for()
        expect(box(page)).to_have_value("a draft")
    other = page.context.new_page()  # its tab has it already
    other.goto(page_url + "?persona=soldier")
    other.get_by_role("heading", name="Say hello to Tom").wait_for()
    expect(box(other)).to_have_value("")


def test_what_a_new_tab_took_over_stays_in_it(open_page, tiny, page_url):
    page = open_page(tiny)
    over_the_limit = "i sell maps.\n" + "x" * 201
    persona_box(page).fill(over_the_limit)
    box(page).fill("a draft")
    wait_for_kept(page, "now:draft", "a draft")
    wait_for_kept(page, "now:text", "xxx")
    other = page.context.new_page()
    other.goto(page_url)
    expect(box(other)).to_have_value("a draft")
    other.reload()
    expect(box(other)).to_have_value("a draft")
    expect(persona_box(other)).to_have_value(over_the_limit)


def test_what_one_tab_forgets_another_tab_forgets_too(open_page, tiny, page_url):
    page = open_page(tiny)
    persona_box(page).fill(MINE)
    wait_for_kept(page, "now:record", "i sell maps")
    other = page.context.new_page()
    other.goto(page_url)
    expect(persona_box(other)).to_have_value(MINE)
    button(page, "Chats").click()
    button(page, "Forget everything").click()
    button(page, "Sure? Forget everything").click()
    for tab in (page, other):
        expect(persona_box(tab)).to_have_value(persona_text(PRESETS["environmentalist"]))
        wait_for_kept(tab, "now:record", "Willow")
    kept = other.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
    assert "maps" not in kept
