"""320 pixels, and a desktop's window at 200 %: nothing is cut off, nothing scrolls sideways, everything can be hit.

Run: `python -m pytest tests/browser/test_narrow.py`
"""

import json

import pytest

from tests.browser.conftest import SCREENSHOTS
from tests.browser.driving import SLICED, ask, button, persona_box, retry, wait_for_replies

STATES = {
    "empty": lambda page: None,
    "chat": lambda page: make_a_chat(page),
    "chats": lambda page: button(page, "Chats").click(),
    "share": lambda page: go_on(page, "Share"),
    "talk": lambda page: go_on(page, "Let them talk"),
    "faces": lambda page: go_on(page, "Change the face"),
    "persona": lambda page: (page.keyboard.press("Escape"), persona_box(page).fill("w" * 201)),
    "settings": lambda page: (button(page, "Settings").click(), page.get_by_label("Seed").focus()),
}
# what cannot be seen whole in its window: beside the window, or cut off by what it stands in (but for rows that scroll)
CUT_OFF = """() => [...document.querySelectorAll("button, input, textarea, p, h1, h2, h3, label, li, b, small")]
    .filter(e => e.checkVisibility() && !e.closest(".unseen, .skip, #cast, .starters, #symbols") && !e.closest("[aria-hidden=true]"))
    .flatMap(e => {
        const box = e.getBoundingClientRect();
        if (!box.width || !box.height) return [];
        const name = `${e.tagName} ${e.getAttribute("aria-label") || e.textContent.trim().slice(0, 40) || e.className}`;
        const wrong = [];
        if (box.left < -0.5 || box.right > innerWidth + 0.5) wrong.push(`${name}: ${box.left} to ${box.right}`);
        if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "hidden" && getComputedStyle(e).textOverflow !== "ellipsis")
            wrong.push(`${name}: ${e.scrollWidth} wide in ${e.clientWidth}`);
        if (e.matches("button, input:not([type=range])") && (box.width < 24 || box.height < 24))
            wrong.push(`${name}: ${box.width} x ${box.height}`);
        return wrong;
    })"""

# buttons under the message box that the line beside them covers
COVERED = """() => {
    const line = document.querySelector("#status p").getBoundingClientRect();
    return [...document.querySelectorAll("#after button")].map(e => [e.textContent, e.getBoundingClientRect()])
        .filter(([, box]) => box.left < line.right && line.left < box.right && box.top < line.bottom && line.top < box.bottom)
        .map(([name]) => name.trim());
}"""


def make_a_chat(page) -> None:
    ask(page, "w" * 60 + " and a question?")
    wait_for_replies(page, 1)
    retry(page, 2)


SIZES = [
    (1280, 800),
    (390, 844),
    (412, 732),
    (390, 664),
    (360, 640),
    (320, 640),
    (640, 400),
    (1024, 600),
]


OWN = {
    "one's own": "i sell maps.\ni love rain.\ni hate sand.\ni have a boat.",
    "of long sentences": "\n".join(
        f"i am {n} and " + "i climb many stairs, " * 9 for n in range(12)
    ),
}


@pytest.mark.parametrize("who", ["a preset", *OWN])
def test_the_first_screen_is_whole_above_the_message_box(open_page, tiny, who):
    page = open_page(tiny)
    if who in OWN:  # says nothing by itself
        persona_box(page).fill(OWN[who])
        page.get_by_role("heading", name="Say hello to your persona").wait_for()
    sliced = {}
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(100)
        sliced[width, height] = page.evaluate(SLICED)
    assert sliced == {size: [] for size in SIZES}


def go_on(page, name: str) -> None:
    page.keyboard.press("Escape")
    button(page, name).click()


@pytest.mark.parametrize("size", [(320, 640), (640, 400)], ids=["320 pixels", "200 percent"])
def test_nothing_is_cut_off_and_nothing_scrolls_sideways(open_page, tiny, size):
    width, height = size
    page = open_page(tiny, viewport={"width": width, "height": height})
    found = []
    for name, reach in STATES.items():
        reach(page)
        page.screenshot(path=SCREENSHOTS / f"{width}-{name}.png")
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append((name, f"{wide} wide"))
        found += [(name, what) for what in page.evaluate(CUT_OFF)]
    assert page.evaluate(COVERED) == []
    assert page.locator("#persona").bounding_box()["height"] > 300  # all of it, below the talk
    assert not found, "\n".join(map(str, found))


def test_ones_own_cards_are_in_sight_and_lie_over_nothing(open_page, tiny):
    page = open_page(tiny)
    page.evaluate("document.fonts.ready")  # another font has other lines
    height = page.locator("#cast").bounding_box()["height"]
    own = [{"name": name, "sentences": [f"i am {name}."]} for name in ("Zoe", "W" * 40)]
    kept = [{"id": one["name"], "persona": {**one, "face": "★" * 16}} for one in own]
    page.evaluate("kept => (localStorage['persona-bot:personas'] = kept)", json.dumps(kept))
    page.reload()
    card = page.locator("#own-cards .card")
    card.nth(1).wait_for()
    page.wait_for_function(
        """() => {
            const second = document.querySelectorAll("#own-cards .card")[1];
            const { right, width } = second.getBoundingClientRect();
            return right < 500 && second.querySelector(".name").getBoundingClientRect().width <= width;
        }"""
    )
    assert card.first.locator(".face").evaluate("e => getComputedStyle(e).overflow") == "hidden"
    page.wait_for_function(
        "height => Math.abs(document.querySelector('#cast').getBoundingClientRect().height - height) <= 1",
        arg=height,
    )


LEFT = """e => {
    const range = document.createRange();
    const text = document.createTreeWalker(e, NodeFilter.SHOW_TEXT).nextNode();
    const place = n => (range.setStart(text, n), range.setEnd(text, n + 1), range.getBoundingClientRect().left);
    return place(text.length - 1) < place(0);
}"""


def test_what_is_written_from_right_to_left_has_its_full_stop_on_the_left(open_page, tiny):
    page = open_page(tiny)
    text = "שלום, אני אופה לחם."
    persona_box(page).fill(text)
    page.get_by_label("Name", exact=True).fill(text)
    page.locator("#header h2", has_text=text).wait_for()
    page.locator("#own-cards small").wait_for()
    for place in ("#header h2", "#header p", ".facts li", "#own-cards small"):
        assert page.locator(place).first.evaluate(LEFT), place
    boxes = page.locator(
        "#composer textarea, #persona-text textarea, #persona-name :is(input, textarea)"
    )
    assert (
        boxes.evaluate_all("all => all.map(e => getComputedStyle(e).unicodeBidi)")
        == ["plaintext"] * 3
    )
