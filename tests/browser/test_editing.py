"""What stands in the message box when an edit is left, a message is refused, or a hand is quicker than the reply's end.

Run: `python -m pytest tests/browser/test_editing.py`
"""

from playwright.sync_api import expect

from page.passing_on import MAX_FILE_BYTES
from persona_bot.persona import MAX_MESSAGE_CHARS
from tests.browser.driving import (
    ask,
    box,
    button,
    expect_messages,
    held,
    persona_box,
    unanswered,
    wait_for_replies,
)
from tests.browser.test_passing_on import bring
from tests.browser.test_talking import let_them_talk

DRAFT = "my long draft"


def edit(page) -> None:
    button(page, "Edit message 1").click()
    expect(box(page)).to_have_value("first question")


def test_an_edit_that_is_left_any_way_gives_the_draft_back(open_page, tiny):
    page = open_page(tiny)
    for count, message in enumerate(("first question", "second question"), start=1):
        ask(page, message)
        wait_for_replies(page, count)
    box(page).fill(DRAFT)
    edit(page)
    button(page, "Retry").click()
    expect(box(page)).to_have_value(DRAFT)
    page.get_by_text("2/2").wait_for()
    button(page, "Send").wait_for()
    for leave in ("New chat", "Tom, soldier"):
        edit(page)
        button(page, leave).click()
        page.locator(".invitation").wait_for()
        expect(box(page)).to_have_value(DRAFT)
        button(page, "Undo").click()
        page.locator("#transcript .you").nth(1).wait_for()
        expect(box(page)).to_have_value(DRAFT)
    edit(page)
    button(page, "Undo").click()
    both = f"second question {DRAFT}"
    expect(box(page)).to_have_value(both)
    edit(page)
    let_them_talk(page, "soldier")
    page.locator("[data-editing]").wait_for(state="detached")
    expect(box(page)).to_have_value(both)
    button(page, "Stop").click()
    button(page, "Send").wait_for()
    page.reload()
    page.locator("#transcript .you").first.wait_for()
    expect(box(page)).to_have_value(both)


def test_what_was_changed_of_a_message_stays_behind_the_draft_unless_it_is_cancelled(
    open_page, tiny
):
    page = open_page(tiny)
    for count, message in enumerate(("first question", "second question"), start=1):
        ask(page, message)
        wait_for_replies(page, count)

    def change() -> None:
        box(page).fill(DRAFT)
        edit(page)
        box(page).fill("a better question")

    both = f"{DRAFT} a better question"
    for leave in ("New chat", "Tom, soldier"):
        change()
        button(page, leave).click()
        page.locator(".invitation").wait_for()
        expect(box(page)).to_have_value(both)
        button(page, "Undo").click()
        page.locator("#transcript .you").nth(1).wait_for()
        expect(box(page)).to_have_value(both)
    change()
    button(page, "Edit message 2").click()
    expect(box(page)).to_have_value("second question")
    page.locator(".you[data-editing]", has_text="second question").wait_for()
    button(page, "Cancel").click()
    expect(box(page)).to_have_value(both)
    change()
    button(page, "Cancel").click()
    expect(box(page)).to_have_value(DRAFT)
    change()
    page.reload()
    page.locator("#transcript .you").first.wait_for()
    expect(box(page)).to_have_value(both)


def test_an_edit_that_a_broken_file_interrupts_is_over(open_page, tiny):
    page = open_page(tiny)
    ask(page, "first question")
    wait_for_replies(page, 1)
    box(page).fill(DRAFT)
    edit(page)
    bring(page, "card.json", b"{}")
    page.get_by_text("This is no character card").wait_for()
    page.locator("[data-editing]").wait_for(state="detached")
    expect(box(page)).to_have_value(DRAFT)
    expect_messages(page, ["first question"])


def test_an_edit_that_is_refused_goes_on(open_page, tiny):
    page = open_page(tiny)
    ask(page, "first question")
    wait_for_replies(page, 1)
    box(page).fill(DRAFT)
    persona_box(page).fill("x" * 201)
    edit(page)
    ask(page, "a better one")
    page.get_by_test_id("toast-body").get_by_text("Line 1 has a sentence of 201").wait_for()
    expect(box(page)).to_have_value("a better one")
    button(page, "Cancel").click()
    expect(box(page)).to_have_value(DRAFT)


def test_a_message_that_is_sent_as_a_reply_ends_leaves_the_box(open_page, tiny, monkeypatch):
    page = open_page(tiny)
    go = held(tiny, monkeypatch, after=3)
    ask(page, "first")
    page.locator("#growing .them").wait_for()
    with unanswered(page, "**/run/**"):  # the page does not hear of the end
        with page.expect_request("**/run/**"):
            go.set()
        ask(page, "second")
        expect(page.locator("#just-sent .you")).to_have_count(0)
        expect(box(page)).to_have_value("")
    wait_for_replies(page, 2)
    expect_messages(page, ["first", "second"])
    expect(box(page)).to_have_value("")


def test_letters_are_counted_as_the_server_counts_them(open_page, tiny):
    page = open_page(tiny)
    with unanswered(page):
        ask(page, "🐝" * 1000)
        expect(box(page)).to_have_value("")
    wait_for_replies(page, 1)


def test_the_script_has_its_limits_from_the_server(open_page, tiny):
    page = open_page(tiny)
    limits = page.evaluate("personaLimits")
    assert (limits["messageChars"], limits["fileBytes"]) == (MAX_MESSAGE_CHARS, MAX_FILE_BYTES)
    page.evaluate("Object.assign(personaLimits, { messageChars: 9, fileBytes: 9 })")
    with unanswered(page):
        ask(page, "ten chars.")
        expect(page.locator("#just-sent .you")).to_have_count(0)
        expect(box(page)).to_have_value("ten chars.")  # until the server has taken it
    wait_for_replies(page, 1)
    with page.expect_request("**/queue/join*") as asked:
        bring(page, "chat.json", b"ten bytes.")
    assert asked.value.post_data_json["event_data"] == {"text": "", "bytes": 10}
