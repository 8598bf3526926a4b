"""The first moments of a visit, and of one that a server began anew: what is pressed counts for the chat that was there.

Run: `python -m pytest tests/browser/test_opening.py`
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from page.blocks import demo
from tests.browser.driving import (
    ask,
    box,
    button,
    expect_messages,
    expect_replies,
    persona_box,
    wait_for_replies,
)

MINE = "i sell maps.\ni love rain."


def wait_until_at_rest(page) -> None:
    """The visit has begun, and no call is under way that would make the server know its session again."""
    page.locator(".model b").wait_for()
    rests = 0  # looks in a row that found no call; one may be about to be made
    for _ in range(200):
        rests = 0 if any(demo._queue.active_jobs) else rests + 1
        if rests == 10:
            return
        page.wait_for_timeout(50)
    raise AssertionError("a call does not end")


@contextmanager
def slow_to_open(page) -> Iterator[None]:
    """The page is loaded anew, and what it asks for first gets to the server only after the block."""
    waiting = []
    page.route("**/queue/join*", lambda route: waiting.append(route), times=1)
    page.reload()
    for _ in range(200):
        if waiting:
            break
        page.wait_for_timeout(50)
    yield
    waiting[0].continue_()


def test_whatever_is_pressed_first_after_a_new_start_brings_the_chat_again(open_page, tiny):
    page = open_page(tiny, ignore=("409 (Conflict)",))
    page.on("download", lambda file: pytest.fail("a file of another chat"))
    persona_box(page).fill(MINE)
    ask(page, "first")
    first = wait_for_replies(page, 1)
    page.reload()
    for press in (
        lambda: button(page, "Retry").click(),
        lambda: button(page, "Undo").click(),
        lambda: button(page, "New chat").click(),
        lambda: page.locator(".pen").click(),
        lambda: (button(page, "Share").click(), button(page, "Download as text").click()),
    ):
        wait_until_at_rest(page)
        demo.app.state_holder.session_data.clear()
        with page.expect_navigation():
            press()
        expect_messages(page, ["first"])
        expect_replies(page, first)
        expect(persona_box(page)).to_have_value(MINE)


def test_a_message_that_is_sent_while_the_page_opens_goes_on_with_the_kept_chat(open_page, tiny):
    page = open_page(tiny)
    persona_box(page).fill(MINE)
    ask(page, "first")
    first = wait_for_replies(page, 1)
    with slow_to_open(page):
        ask(page, "second")
        expect_messages(page, ["second"])
        page.wait_for_timeout(1000)  # time for an answer that comes too early
    replies = wait_for_replies(page, 2)
    assert replies[0] == first[0]
    expect_messages(page, ["first", "second"])
    expect(persona_box(page)).to_have_value(MINE)
    expect(box(page)).to_have_value("")


def test_a_card_that_is_pressed_while_the_page_opens_is_spoken_to(open_page, tiny):
    page = open_page(tiny)
    ask(page, "first")
    wait_for_replies(page, 1)
    with slow_to_open(page):
        button(page, "Tom, soldier").click()
        page.wait_for_timeout(1000)
    page.locator(".model b").wait_for()  # it is open
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    expect_messages(page, [])


def test_where_opening_is_refused_a_message_is_sent_all_the_same(open_page, tiny):
    page = open_page(tiny, ignore=("503",))
    refuse = {"status": 503, "json": {"detail": "The server is restarting."}}
    page.route("**/queue/join*", lambda route: route.fulfill(**refuse), times=1)
    with page.expect_response(lambda answer: answer.status == 503):
        page.reload()
    ask(page, "hello")
    wait_for_replies(page, 1)
    expect_messages(page, ["hello"])
