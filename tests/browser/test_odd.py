"""Odd names, addresses and stores.

Run: `python -m pytest tests/browser/test_odd.py`
"""

import json

import pytest
from playwright.sync_api import expect

from page import share
from page.conversation import Conversation, Exchange
from page.events import FIRST
from tests.browser.conftest import PHONE
from tests.browser.driving import ask, button, expect_messages, persona_box, wait_for_replies

BESIDE = """e => {
    const range = document.createRange();
    range.selectNodeContents(e);
    const { left, right } = range.getBoundingClientRect();
    return Math.max(-left, right - innerWidth);
}"""


def test_a_name_that_is_one_long_word_stays_within_a_phone(open_page, tiny):
    page = open_page(tiny, **PHONE)
    persona_box(page).fill("i sell maps.")
    page.get_by_label("Name", exact=True).fill("W" * 40)
    page.locator(".invitation h3", has_text="W" * 40).wait_for()
    assert page.locator(".invitation h3").evaluate(BESIDE) <= 0
    button(page, "Let them talk").click()
    assert page.locator("#duet .own span").last.evaluate(BESIDE) <= 0


def test_a_damaged_entry_of_the_store_costs_nothing_but_itself(open_page, tiny):
    page = open_page(tiny)
    good = {"id": "x", "persona": {"name": "Zoe", "face": "", "sentences": ["i am zoe."]}}
    for key, damaged in {
        "chats": [None, 5, {}],
        "personas": [None, {}, {"persona": {}}, {"persona": {"name": 5}}, good],
    }.items():
        page.evaluate(
            "([k, v]) => (localStorage['persona-bot:' + k] = v)", [key, json.dumps(damaged)]
        )
    page.reload()
    expect(page.locator("#own-cards .card")).to_have_count(1)
    ask(page, "hi")
    wait_for_replies(page, 1)
    button(page, "Chats").click()
    expect(page.locator("#earlier .open")).to_have_count(2)


@pytest.mark.parametrize("behind", [".", "%20"])
def test_what_a_text_adds_to_a_link_does_no_harm(open_page, tiny, behind):
    link = share.chat_to_link(Conversation(FIRST, [Exchange("hello", FIRST, ["hi."])]))
    page = open_page(tiny, f"#chat={link}{behind}")
    expect_messages(page, ["hello"])
