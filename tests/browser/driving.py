"""What a visitor's hands do, and what their eyes see, for the browser's tests."""

import functools
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import expect

from page.backend import Progress

expect.set_options(timeout=60_000)

# what of the first screen is cut off by the head above it or by the message box below
SLICED = """() => {
    const room = document.querySelector("#scroll").getBoundingClientRect();
    return [...document.querySelectorAll(".invitation > *, .talk p, .starter")].filter(e => e.checkVisibility())
        .map(e => [e.textContent, e.getBoundingClientRect()])
        .filter(([, box]) => box.top < room.top || box.bottom > room.bottom).map(([text]) => text);
}"""
REPLY = '.them:not([data-number="-1"]) p:not(.dots)'


def box(page):
    return page.get_by_role("textbox", name="Message")


def persona_box(page):
    return page.get_by_role("textbox", name="Who they are")


def button(page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def ask(page, message: str) -> None:
    box(page).fill(message)
    box(page).press("Enter")


def messages(page) -> list[str]:
    return page.locator(".you p").all_inner_texts()


def replies(page) -> list[str]:
    """What the persona answered; its greeting is none."""
    return page.locator(REPLY).all_inner_texts()


def wait_for_replies(page, count: int) -> list[str]:
    """All replies, once there are so many and none is being written."""
    page.wait_for_function(
        "([reply, count]) => document.querySelectorAll(reply).length == count && !document.querySelector('#growing .them')",
        arg=[REPLY, count],
    )
    button(page, "Send").wait_for()
    return replies(page)


def expect_replies(page, texts: list[str]) -> None:
    expect(page.locator(REPLY)).to_have_text(texts, use_inner_text=True)


def expect_messages(page, texts: list[str]) -> None:
    expect(page.locator(".you p")).to_have_text(texts, use_inner_text=True)


@contextmanager
def unanswered(page, calls: str = "**/queue/join*") -> Iterator[None]:
    """What the page asks of the server within the block gets there only after it."""
    waiting = []
    page.route(calls, lambda route: waiting.append(route))
    yield
    page.route(calls, lambda route: route.continue_())  # later ones pass at once
    for route in waiting:
        route.continue_()


def retry(page, number: int) -> str:
    """The last message's reply of this number, once it is complete."""
    button(page, "Retry").click()
    page.wait_for_function(
        "n => document.querySelector('.alternatives span')?.textContent == `${n}/${n}`", arg=number
    )
    button(page, "Send").wait_for()
    return replies(page)[-1]


def long_reply(persona, turns, settings, stop):
    """In place of `backend._write`: a reply that grows until somebody ends it."""
    for count in range(1, 300):
        if stop.wait(0.4):  # slow enough for a browser on a busy machine to do something besides
            return
        yield Progress("word " * count, count, 1.0)


def held(model, monkeypatch, after: int) -> threading.Event:
    """The model waits behind so many passes until the event is set."""
    go, forward, passes = threading.Event(), model.backend.model.forward, itertools.count()

    @functools.wraps(forward)
    def waiting(*args, **options):
        if next(passes) >= after:
            go.wait(60)
        return forward(*args, **options)

    monkeypatch.setattr(model.backend.model, "forward", waiting)
    return go


def slow(model, monkeypatch, seconds: float = 0.1) -> None:
    forward = model.backend.model.forward

    @functools.wraps(forward)
    def slowed(*args, **options):
        time.sleep(seconds)
        return forward(*args, **options)

    monkeypatch.setattr(model.backend.model, "forward", slowed)
