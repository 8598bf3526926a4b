"""What people do on the page, done in a real Chromium; the first test with the real default weights.

Run: `python -m pytest tests/browser`
"""

import re
import time

from playwright.sync_api import expect

from page import backend
from page.events import PRESETS
from persona_bot.persona import persona_text
from tests.browser.conftest import DESKTOP, PHONE, SCREENSHOTS
from tests.browser.driving import (
    ask,
    box,
    button,
    expect_messages,
    expect_replies,
    held,
    long_reply,
    persona_box,
    wait_for_replies,
)

MARKUP = [
    "<script>alert(1)</script><img src=http://evil.example/a.png onerror=alert(1)>",
    "![x](http://evil.example/b.png) [link](javascript:alert(1)) **bold** `code` $$x^2$$",
    '<div style="position:fixed;inset:0;background:url(http://evil.example/c)"></div><form action=//evil.example><input></form>',
    "<video src=http://evil.example/d><svg onload=alert(1)><iframe src=//evil.example></iframe> &lt;b&gt; {{7*7}} ${7*7}",
]


def test_a_visit_with_the_real_weights(open_page, real, monkeypatch):
    page = open_page(real)
    button(page, "Tom, soldier").click()
    page.get_by_role("heading", name="Say hello to Tom").wait_for()
    expect(persona_box(page)).to_have_value(persona_text(PRESETS["soldier"]))

    page.evaluate(
        """() => {
            window.states = new Set();
            new MutationObserver(() => window.states.add(document.querySelector('.them:not([data-number="-1"]) p:not(.dots)')?.textContent ?? ""))
                .observe(document.querySelector("#scroll"), { childList: true, subtree: true, characterData: true });
        }"""
    )
    button(page, "What do you do all day?").click()
    first = wait_for_replies(page, 1)[0]
    states = [state for state in page.evaluate("[...window.states]") if state]
    # a short reply may come in two pieces
    assert len(states) >= 2 and states[-1] == first
    assert all(
        later.startswith(earlier) for earlier, later in zip(states, states[1:], strict=False)
    )
    assert re.search(r"\d+ tokens/s", page.locator("#status").text_content())

    go = held(real, monkeypatch, after=3)  # else a short reply ends before a hand is at the button
    button(page, "Retry").click()
    page.locator(".them p[data-writing]").wait_for()
    button(page, "Stop").click()
    go.set()
    assert len(wait_for_replies(page, 1)[0]) > 0
    expect(page.locator(".alternatives span")).to_have_text("2/2")
    monkeypatch.undo()

    persona_box(page).fill(persona_text(PRESETS["soldier"]) + "\ni have a pet parrot named rico.")
    page.locator(
        ".notice", has_text="The persona changed. It counts from the next reply."
    ).wait_for()
    ask(page, "Do you have a pet?")
    wait_for_replies(page, 2)
    expect(page.locator(".notice")).to_have_text(["The persona changed here."])
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "desktop-light-edited.png")

    button(page, "Undo").click()
    expect(page.locator(".them")).to_have_count(2)  # one is the greeting
    expect(box(page)).to_have_value("Do you have a pet?")

    button(page, "Edit message 1").click()
    page.locator("#editing", has_text="Your next message replaces the marked one").wait_for()
    expect(box(page)).to_have_value("What do you do all day?")
    ask(page, "What is your job?")
    wait_for_replies(page, 1)
    expect_messages(page, ["What is your job?"])


def test_light_dark_and_phone_are_photographed(open_page, real):
    """The README's docs/screenshot.png is such a picture, with *Why this reply* open; take it anew when the page or the model changes."""
    looks = {
        "desktop-light": DESKTOP,
        "desktop-dark": {**DESKTOP, "color_scheme": "dark"},
        "phone-light": PHONE,
    }
    for name, options in looks.items():
        page = open_page(real, "?persona=environmentalist", **options)
        page.wait_for_timeout(300)  # fonts
        page.screenshot(path=SCREENSHOTS / f"{name}-empty.png")
        questions = (
            ["Where do you work?", "Do you have a car?"]
            if name == "desktop-light"
            else ["Where do you work?"]
        )
        for count, question in enumerate(questions, start=1):
            ask(page, question)
            wait_for_replies(page, count)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 20)"
        assert dark == ("dark" in name)


def test_a_phone_shows_the_talk_without_sideways_scrolling(open_page, tiny):
    page = open_page(tiny, **PHONE)
    for open_settings in (False, True):
        if open_settings:
            button(page, "Settings").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.evaluate("scrollTo(0, 0)")
    for element in (
        box(page),
        button(page, "Send"),
        page.get_by_role("heading", name="Say hello"),
        button(page, "Where do you work?"),
    ):
        assert element.bounding_box()["y"] + element.bounding_box()["height"] <= 844
    sizes = page.evaluate(
        "[...document.querySelectorAll('textarea, input')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 16
    ask(page, "w" * 120)
    wait_for_replies(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_every_control_has_a_name(open_page, tiny):
    page = open_page(tiny)
    ask(page, "hi")
    wait_for_replies(page, 1)
    button(page, "Settings").click()
    button(page, "Edit message 1").click()
    page.get_by_role("slider").first.wait_for()
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = (
        "button",
        "textbox",
        "slider",
        "spinbutton",
        "link",
        "combobox",
        "checkbox",
        "tab",
        "switch",
    )
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(controls) > 35
    assert [node for node in controls if not node.get("name", {}).get("value", "").strip()] == []


def test_the_keyboard_is_enough(open_page, tiny):
    page = open_page(tiny)
    page.wait_for_function("() => document.activeElement.matches('#composer textarea')")
    page.keyboard.type("hi")
    page.keyboard.press("Enter")
    wait_for_replies(page, 1)
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(document.activeElement.getAttribute('aria-label') || document.activeElement.textContent).trim()"
            )
        )
    wanted = {"Copy link", "Send", "Retry", "Undo", "New chat", "Edit message 1", "Settings"}
    assert {name.replace("\n", " ") for name in wanted} <= {
        re.sub(r"\s+", " ", name) for name in reached
    }
    assert any("soldier" in name for name in reached) and any("Random" in name for name in reached)


def test_links_bring_a_persona(open_page, tiny, page_url):
    page = open_page(tiny, "?persona=soldier")
    expect(persona_box(page)).to_have_value(persona_text(PRESETS["soldier"]))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button(page, "Copy link").click()
    page.get_by_text("Link copied. Whoever opens it meets this persona.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page_url + "?persona=soldier"
    persona_box(page).fill("i am <b>bold</b> & 100% me.\ni like tea?")
    page.wait_for_function("() => document.querySelector('.who').dataset.link.includes('tea')")
    button(page, "Copy link").click()
    page.wait_for_function(
        "() => navigator.clipboard.readText().then(text => text.includes('tea'))"
    )
    link = page.evaluate("navigator.clipboard.readText()")
    other = open_page(tiny, link.removeprefix(page_url))
    expect(persona_box(other)).to_have_value("i am <b>bold</b> & 100% me.\ni like tea?")
    other.get_by_role("heading", name="Say hello to your persona").wait_for()


def test_a_link_over_the_limit_keeps_its_text_and_names_the_line(open_page, tiny):
    page = open_page(tiny, "?persona=fine.%0A" + "x" * 201)
    page.get_by_test_id("toast-body").get_by_text(
        "Line 2 has a sentence of 201 characters"
    ).wait_for()
    expect(persona_box(page)).to_have_value("fine.\n" + "x" * 201)
    page.get_by_test_id("toast-close").click()
    page.get_by_test_id("toast-body").wait_for(state="detached")
    box(page).fill("hi")
    button(page, "Send").click()
    page.get_by_test_id("toast-body").nth(0).wait_for()
    expect(box(page)).to_have_value("hi")
    expect_replies(page, [])
    expect(page.locator("#just-sent .you")).to_have_count(0)


def test_hints_for_what_cannot_be_sent(open_page, tiny):
    page = open_page(tiny)
    assert button(page, "Send").evaluate("e => getComputedStyle(e).pointerEvents") == "none"
    box(page).press("Enter")
    page.get_by_text("Write a message first.").wait_for()
    ask(page, "a" * 1001)
    page.get_by_text(
        "The message has 1,001 characters and at most 1,000 fit; shorten it."
    ).wait_for()
    expect(box(page)).to_have_value("a" * 1001)
    persona_box(page).fill("\n".join(f"i have {n} cats." for n in range(13)))
    page.locator(".counter[data-over]").get_by_text("Line 13").wait_for()


def test_markup_is_shown_as_text(open_page, tiny, monkeypatch):
    def echo(persona, turns, settings, stop):
        yield backend.Progress(turns[-1], 1, 1.0)

    monkeypatch.setattr(backend, "write", echo)
    page = open_page(tiny)
    for count, text in enumerate(MARKUP, start=1):
        persona_box(page).fill(text)
        ask(page, text)
        assert wait_for_replies(page, count) == MARKUP[:count]
    expect_messages(page, MARKUP)
    assert (
        page.locator("#talk :is(script, img, iframe, form, video, a, b, em, strong, code)").count()
        == 0
    )


def test_a_failed_reply_is_told_and_the_next_one_comes(open_page, tiny, monkeypatch):
    page = open_page(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(tiny.backend.model, "forward", lambda parts: 1 / 0)
        ask(page, "hi there")
        page.get_by_text("The model failed during the reply; send the message again.").wait_for()
        expect(box(page)).to_have_value("hi there")
        page.get_by_role("heading", name="Say hello").wait_for()
    box(page).press("Enter")
    wait_for_replies(page, 1)


def test_two_windows_do_not_share_a_chat(open_page, tiny):
    one, two = open_page(tiny), open_page(tiny)
    ask(one, "i am one")
    ask(two, "i am two")
    for page, said in ((one, "i am one"), (two, "i am two")):
        wait_for_replies(page, 1)
        expect_messages(page, [said])


def test_closing_the_window_frees_its_place(open_page, tiny, monkeypatch):
    monkeypatch.setattr(backend, "_write", long_reply)
    page = open_page(tiny)
    ask(page, "hi")
    page.locator(".them p[data-writing]").wait_for()
    assert len(backend.running) == 1
    page.close()
    end = time.monotonic() + 30
    while backend.running and time.monotonic() < end:
        time.sleep(0.02)
    assert backend.running == set()


def test_the_page_opens_while_the_model_loads(browser, page_url, tiny, monkeypatch):
    monkeypatch.setattr(backend, "model", None)
    backend.ready.clear()
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(page_url)
    page.get_by_text("The model is loading…").wait_for()
    ask(page, "hi")
    page.locator(".dots").wait_for()
    backend.use(tiny)
    wait_for_replies(page, 1)
    page.get_by_text("a tiny model").wait_for()
    page.close()
