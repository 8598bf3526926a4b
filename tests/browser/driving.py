"""What a visitor's hands do, and what their eyes see, for the browser's tests."""

import functools
import time

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


def wait_for_text(page, selector: str, text: str) -> None:
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.value == text",
        arg=[selector, text],
    )


def retry(page, number: int) -> str:
    """The last message's reply of this number, once it is complete."""
    button(page, "Retry").click()
    page.wait_for_function(
        "n => document.querySelector('.alternatives span')?.textContent == `${n}/${n}`", arg=number
    )
    button(page, "Send").wait_for()
    return replies(page)[-1]


def slow(model, monkeypatch, seconds: float = 0.1) -> None:
    forward = model.backend.model.forward

    @functools.wraps(forward)
    def slowed(*args, **options):
        time.sleep(seconds)
        return forward(*args, **options)

    monkeypatch.setattr(model.backend.model, "forward", slowed)
