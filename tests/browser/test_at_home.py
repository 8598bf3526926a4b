"""Every place and every way to use the page: small frames, no emoji font, slow lines, keys, fingers, screen readers.

Run: `python -m pytest tests/browser/test_at_home.py`
"""

import pytest
from playwright.sync_api import expect

from page.events import PRESETS
from tests.browser.conftest import DESKTOP, PHONE
from tests.browser.driving import (
    SLICED,
    ask,
    box,
    button,
    expect_messages,
    expect_replies,
    persona_box,
    retry,
    unanswered,
    wait_for_replies,
)

# as a Space's page does it: the frame takes the height of what is in it and never scrolls by itself
RESIZER = """<!doctype html><meta name=viewport content="width=device-width"><body style="margin:0">
<header style="height:56px">a Space</header><iframe scrolling=no style="width:100%;height:600px;border:0" src="PAGE"></iframe>
<script>
const frame = document.querySelector("iframe");
setInterval(() => {
	const page = frame.contentDocument?.querySelector("gradio-app, .gradio-container");
	if (page) frame.style.height = Math.ceil(frame.contentDocument.documentElement.scrollHeight) + "px";
}, 25);
</script>"""


def test_settings_leave_the_text_box_and_the_replies_alone(open_page, tiny):
    page = open_page(tiny)
    button(page, "Settings").click()
    expect(page.get_by_label("Seed")).to_have_value("")
    assert persona_box(page).bounding_box()["height"] > 180
    ask(page, "tell me about yourself")
    said = {wait_for_replies(page, 1)[0], *(retry(page, number) for number in (2, 3, 4))}
    assert len(said) > 1
    expect(page.get_by_label("Seed")).to_have_value("")
    assert persona_box(page).bounding_box()["height"] > 180


@pytest.fixture
def space(browser, open_page, tiny, page_url):
    """A phone that shows a Space's page."""
    open_page(tiny).close()
    context = browser.new_context(**PHONE)
    page = context.new_page()
    page.route(
        "**/space.html",
        lambda route: route.fulfill(
            content_type="text/html", body=RESIZER.replace("PAGE", page_url)
        ),
    )
    page.goto(page_url + "space.html")
    page.frame_locator("iframe").get_by_text(tiny.name).wait_for()
    yield page
    context.close()


def test_a_phone_in_a_spaces_frame_shows_the_chat_and_the_box(space):
    page, frame = space, space.frame_locator("iframe")
    height = "() => document.querySelector('iframe').offsetHeight"
    heights = [0, page.evaluate(height)]
    while len({*heights[-3:]}) > 1 and len(heights) < 60:  # at rest
        page.wait_for_timeout(400)
        heights.append(page.evaluate(height))
    assert 600 < heights[-1] == heights[-3] < 1700, heights
    send = frame.get_by_role("textbox", name="Message").bounding_box()
    assert send["y"] + send["height"] < 844
    assert page.frames[1].evaluate(SLICED) == []


def test_what_opens_in_a_spaces_frame_opens_in_sight(space):
    frame = space.frame_locator("iframe")
    # the frame's middle is far below the screen then
    frame.get_by_role("button", name="Settings").tap()
    space.wait_for_function("() => document.querySelector('iframe').offsetHeight > 2000")
    space.evaluate("scrollTo(0, 0)")
    for name in ("Chats", "Share", "Let them talk"):
        frame.get_by_role("button", name=name, exact=True).tap()
        expect(frame.locator(":popover-open")).to_be_in_viewport(ratio=1)
        frame.locator(":popover-open").evaluate("e => e.hidePopover()")


def test_every_face_is_a_picture_so_no_emoji_font_is_needed(open_page, tiny):
    page = open_page(tiny)
    page.locator(".card").nth(12).wait_for()
    faces = page.evaluate(
        """() => [...document.querySelectorAll(".face")].map(face => {
            const use = face.querySelector("use");
            const symbol = use && document.querySelector(use.getAttribute("href"));
            return [face.textContent, symbol?.children.length > 0, use?.getBoundingClientRect().width > 8];
        })"""
    )
    shown = [face for face in faces if face[2]]
    assert len(shown) >= len(PRESETS) + 1
    assert all(text == "" and drawn for text, drawn, _ in faces)


def test_a_message_stands_in_the_chat_at_once_and_what_is_typed_meanwhile_stays(open_page, tiny):
    page = open_page(tiny)
    with unanswered(page):
        ask(page, "first message")
        expect(page.locator("#just-sent .you p")).to_have_text("first message")
        expect(box(page)).to_have_value("")
        page.keyboard.type("typed meanwhile")
        expect(box(page)).to_have_value("typed meanwhile")
        expect(page.locator("#just-sent .you p")).to_have_text("first message")
    wait_for_replies(page, 1)
    expect_messages(page, ["first message"])
    expect(box(page)).to_have_value("typed meanwhile")


def test_a_message_that_the_server_refuses_is_back_in_the_box(open_page, tiny):
    page = open_page(tiny)
    persona_box(page).fill("fine.\n" + "x" * 201)
    page.locator(".counter[data-over]").wait_for()
    ask(page, "hi there")
    page.get_by_test_id("toast-body").wait_for()
    expect(box(page)).to_have_value("hi there")
    expect_messages(page, [])


def test_replies_are_chosen_by_mouse_touch_and_keys(open_page, tiny):
    for options in (DESKTOP, PHONE):
        page = open_page(tiny, **options)
        ask(page, "hi")
        said = [wait_for_replies(page, 1)[0], retry(page, 2)]
        press = "tap" if options is PHONE else "click"
        getattr(button(page, "Former reply"), press)()
        wait_for_place(page, "1/2")
        expect_replies(page, [said[0]])
        if options is DESKTOP:
            expect(button(page, "Former reply")).to_be_focused()
            page.keyboard.press("ArrowRight")
            wait_for_place(page, "2/2")
            box(page).focus()
            page.keyboard.press("ArrowLeft")
            wait_for_place(page, "1/2")
        ask(page, "and then?")
        assert wait_for_replies(page, 2)[0] == said[0]


def wait_for_place(page, place: str) -> None:
    page.wait_for_function(
        "place => document.querySelector('.alternatives span')?.textContent == place", arg=place
    )


ESCAPE_AT_ONCE = """() => new MutationObserver((_, observer) => {
    if (!document.querySelector("[data-editing]")) return;
    observer.disconnect();
    window.escaped = true;
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
}).observe(document.body, { childList: true, subtree: true })"""


def test_keys_and_focus(open_page, tiny):
    page = open_page(tiny)
    in_box = "() => document.activeElement.matches('#composer textarea')"
    button(page, "Where do you work?").press("Enter")
    wait_for_replies(page, 1)
    page.wait_for_function(in_box)
    button(page, "Retry").press("Enter")
    page.wait_for_function(in_box)
    wait_for_replies(page, 1)
    page.evaluate(ESCAPE_AT_ONCE)
    page.keyboard.press("ArrowUp")
    page.wait_for_function("window.escaped")
    page.locator("[data-editing]").wait_for(state="detached")
    expect(box(page)).to_have_value("")
    page.keyboard.press("ArrowUp")
    expect(box(page)).to_have_value("Where do you work?")
    page.keyboard.press("Escape")
    expect(box(page)).to_have_value("")
    page.wait_for_function(in_box)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.wait_for_function(in_box)
    expect(box(page)).to_have_value("")
    button(page, "Undo").press("Enter")
    page.get_by_role("heading", name="Say hello").wait_for()
    page.wait_for_function(in_box)


def test_the_first_tab_stop_leads_past_the_cast(open_page, tiny):
    page = open_page(tiny)
    expect(box(page)).to_be_focused()  # from then on the page leaves the focus alone
    skip = button(page, "Skip to the message box")
    first = """e => e === [...document.querySelectorAll("a[href], button, input, textarea")].find(one => one.checkVisibility())"""
    assert skip.evaluate(first)
    assert skip.evaluate("e => getComputedStyle(e).clipPath") != "none"  # not seen
    skip.focus()
    assert skip.evaluate("e => getComputedStyle(e).clipPath") == "none"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('#composer textarea')")


def test_a_phone_shows_the_whole_name_of_who_is_spoken_to(open_page, tiny):
    page = open_page(tiny, **PHONE)
    for heading in ("#header h2", "#header p"):
        fits = "e => e.scrollWidth <= e.clientWidth || e.clientWidth > 250"
        assert page.locator(heading).evaluate(fits), heading


def test_a_screen_reader_hears_who_speaks(open_page, tiny):
    page = open_page(tiny)
    page.evaluate(
        """() => {
            window.announced = [];
            new MutationObserver(() => announced.push(document.querySelector("#announcer").textContent.trim()))
                .observe(document.querySelector("#announcer"), { childList: true, subtree: true });
        }"""
    )
    ask(page, "hi")
    reply = wait_for_replies(page, 1)[0]
    expect(page.locator(".you .by")).to_have_text("You")
    expect(page.locator(".them .by")).to_have_text(["Willow", "Willow"])
    page.wait_for_function("() => announced.length > 0")
    words = page.evaluate("document.querySelector('.them:last-child p').textContent")
    assert page.evaluate("announced[0]") == f"Willow: {words}".strip() and reply


def test_fingers_find_targets_of_44_pixels_and_text_follows_the_browsers_size(open_page, tiny):
    page = open_page(tiny, **PHONE)
    ask(page, "hi")
    wait_for_replies(page, 1)
    retry(page, 2)
    button(page, "Settings").tap()
    page.get_by_label("Seed").wait_for()
    small = page.evaluate(
        """() => {
            const cut = e => {
                const [box, holder] = [e, e.parentElement].map(one => one.getBoundingClientRect());
                const height = Math.min(box.bottom, holder.bottom) - Math.max(box.top, holder.top);
                return { width: box.width, height };
            };
            return [...document.querySelectorAll("button, input[type=range]")].filter(e => e.checkVisibility())
            .map(e => [getComputedStyle(e.parentElement).overflowY == "hidden" ? cut(e) : e.getBoundingClientRect(),
                e.getAttribute("aria-label") || e.textContent.trim() || e.className])
            .filter(([box]) => box.height > 0 && (box.height < 43.5 || box.width < 43.5))
            .map(([box, name]) => `${name}: ${box.width} x ${box.height}`);
        }"""
    )
    assert small == []
    sizes = "() => ['.them p', '.card .name', '#composer textarea'].map(s => parseFloat(getComputedStyle(document.querySelector(s)).fontSize))"
    before = page.evaluate(sizes)
    page.evaluate("document.documentElement.style.fontSize = '24px'")
    after = page.evaluate(sizes)
    assert all(later >= 1.4 * earlier for earlier, later in zip(before, after, strict=True))


OF_COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
STATES = {
    "empty": lambda page: None,
    "over the limit": lambda page: over_the_limit(page),
    "a chat": lambda page: (ask(page, "hi"), wait_for_replies(page, 1)),
    "alternatives": lambda page: retry(page, 2),
    "editing": lambda page: (
        button(page, "Edit message 1").click(),
        page.locator("[data-editing]").wait_for(),
    ),
    "the persona changed": lambda page: change(page),
    "settings": lambda page: (
        button(page, "Settings").click(),
        page.get_by_label("Seed").wait_for(),
    ),
    "earlier chats": lambda page: button(page, "Chats").click(),
    "faces": lambda page: (page.keyboard.press("Escape"), button(page, "Change the face").click()),
    "share": lambda page: (page.keyboard.press("Escape"), button(page, "Share").click()),
    "let them talk": lambda page: (
        page.keyboard.press("Escape"),
        button(page, "Let them talk").click(),
    ),
    "phone": lambda page: (
        page.keyboard.press("Escape"),
        page.set_viewport_size({"width": 390, "height": 844}),
    ),
}


def over_the_limit(page) -> None:
    persona_box(page).fill("x" * 201)
    page.locator(".counter[data-over]").wait_for()


def change(page) -> None:
    button(page, "Cancel").click()
    persona_box(page).fill("i am new.")
    page.locator(".notice").first.wait_for()


@pytest.fixture
def axe():
    module = pytest.importorskip("axe_playwright_python.sync_playwright")
    return module.Axe()


def test_axe_finds_nothing_in_twelve_states_light_dark_and_forced_colours(open_page, tiny, axe):
    page = open_page(tiny)
    page.emulate_media(reduced_motion="reduce")  # nothing is halfway between two colours
    found = []
    for name, reach in STATES.items():
        if name == "a chat":
            persona_box(page).fill("i am a baker.")
            page.locator(".counter[data-over]").wait_for(state="detached")
        reach(page)
        for look in ("light", "dark", "forced colours"):
            page.evaluate("dark => document.body.classList.toggle('dark', dark)", look == "dark")
            forced = "active" if look == "forced colours" else "none"
            page.emulate_media(forced_colors=forced, reduced_motion="reduce")
            rules = None if look == "light" else OF_COLOURS  # no other rule looks at colours
            violations = axe.run(page, options=rules).response["violations"]
            found += [
                (name, look, v["id"], [node["html"][:120] for node in v["nodes"]][:3])
                for v in violations
            ]
    assert not found, "\n".join(map(str, found))
