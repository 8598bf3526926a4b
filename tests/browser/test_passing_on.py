"""What people take along and bring back, in a real Chromium: links, texts, files and character cards.

Run: `python -m pytest tests/browser/test_passing_on.py`
"""

import base64
import json
import struct
import zlib

from playwright.sync_api import expect

from page.cards import write_card
from persona_bot.persona import Persona
from tests.browser.conftest import DESKTOP, SCREENSHOTS
from tests.browser.driving import ask, box, button, persona_box, replies, wait_for_replies
from train.data.dialogues import read_dialogues

CLIPBOARD = {**DESKTOP, "permissions": ["clipboard-read", "clipboard-write"]}
OCTOPUS = Persona(
    "Olga, octopus", ("i am olga.", "<b>i have</b> eight arms."), "🐙", "hi!", ("Any pets?",)
)


def choose(page, entry: str) -> None:
    button(page, "Share").click()
    button(page, entry).click()


def bring(page, name: str, content: bytes) -> None:
    page.locator("#sharing input[type=file]").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )


def download(page, entry: str):
    with page.expect_download() as waiting:
        choose(page, entry)
    return waiting.value


def said(page) -> list[str]:
    return page.locator("#scroll .said p").all_inner_texts()


def expect_said(page, texts: list[str]) -> None:
    expect(page.locator("#scroll .said p")).to_have_text(texts, use_inner_text=True)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one pixel that claims 40,000 by 40,000, with these chunks in it."""
    whole = [
        (b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)),
        *chunks,
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in whole
    )


def test_a_link_holds_the_chat_and_who_opens_it_can_go_on(open_page, tiny, page_url):
    page = open_page(tiny, **CLIPBOARD)
    ask(page, "hi <b>you</b>")
    wait_for_replies(page, 1)
    before = said(page)
    choose(page, "Copy a link to this chat")
    page.get_by_text("Link copied. Whoever opens it reads this chat").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{page_url}#chat=") and len(link) < 2_000

    requests: list[str] = []
    # at once: a page that is left while it loads tells the console of what it no longer gets
    friend = open_page(tiny, link.removeprefix(page_url), requests=requests, **CLIPBOARD)
    friend.locator(".you").wait_for()
    expect_said(friend, before)
    expect(friend).to_have_url(page_url)
    assert requests and not any(
        link.split("#chat=")[1] in r.split("queue/join")[0] for r in requests
    )
    friend.screenshot(path=SCREENSHOTS / "desktop-light-shared.png")
    ask(friend, "and you?")
    wait_for_replies(friend, 2)
    now = said(friend)
    friend.reload()
    friend.locator(".you").nth(1).wait_for()
    expect_said(friend, now)  # not the link's again


def test_a_broken_link_says_so_and_loses_nothing(open_page, tiny, page_url):
    page = open_page(tiny)
    ask(page, "hello")
    wait_for_replies(page, 1)
    before = said(page)
    page.goto(page_url + "#chat=abc")
    page.get_by_text("This link holds no conversation, or it was cut off").wait_for()
    button(page, "Chats").click()
    page.locator("#earlier .open", has_text="hello").click()
    page.locator(".you").wait_for()
    expect_said(page, before)


def test_a_message_and_the_chat_are_copied(open_page, tiny):
    page = open_page(tiny, **CLIPBOARD)
    ask(page, "hello there")
    reply = wait_for_replies(page, 1)[0]
    page.locator(".them").last.hover()
    page.locator(".them").last.get_by_role("button", name="Copy").click()
    page.wait_for_function(
        "text => navigator.clipboard.readText().then(copied => copied === text)", arg=reply
    )
    choose(page, "Copy the chat as text")
    page.get_by_text("The chat is copied.").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    assert f"You: hello there\n\nWillow: {reply}\n" in text
    assert download(page, "Download as text").path().read_text(encoding="utf-8") == text


def test_a_chat_is_downloaded_and_opened_again(open_page, tiny):
    page = open_page(tiny)
    ask(page, "hello there")
    wait_for_replies(page, 1)
    before = said(page)
    file = download(page, "Download as a file to open here again")
    assert file.suggested_filename == "willow-chat.json"
    content = file.path().read_bytes()
    button(page, "New chat").click()
    page.locator(".invitation").wait_for()
    bring(page, "chat.json", content)
    page.locator(".you").wait_for()
    expect_said(page, before)


def test_the_chosen_reply_is_gold_in_the_training_dialogue(open_page, tiny):
    page = open_page(tiny)
    ask(page, "hello there")
    first = wait_for_replies(page, 1)[0]
    button(page, "Retry").click()
    page.get_by_text("2/2").wait_for()
    second = replies(page)[-1]
    button(page, "Former reply").click()
    page.get_by_text("1/2").wait_for()
    (dialogue,) = read_dialogues(download(page, "Download as a training dialogue").path())
    # a browser draws several blanks as one
    found = ["".join(text.split()) for text in dialogue.utterances[0].candidates]
    assert found == ["".join(text.split()) for text in dict.fromkeys([second, first])]


def test_a_card_goes_out_and_comes_back_as_json_and_as_png(open_page, tiny):
    page = open_page(tiny)
    bring(page, "card.json", write_card(OCTOPUS).encode())
    page.get_by_role("heading", name="Say hello to Olga").wait_for()
    expect(persona_box(page)).to_have_value("i am olga.\n<b>i have</b> eight arms.")
    expect_said(page, ["hi!"])
    for entry, name in (
        ("Download the persona as a card (PNG)", "olga.png"),
        ("Download the persona as a card (JSON)", "olga-card.json"),
    ):
        file = download(page, entry)
        assert file.suggested_filename == name
        content = file.path().read_bytes()
        page.locator("#cards [data-who=soldier]").click()
        page.get_by_role("heading", name="Say hello to Olga").wait_for(state="detached")
        bring(page, name, content)
        page.get_by_role("heading", name="Say hello to Olga").wait_for()
        expect(persona_box(page)).to_have_value("i am olga.\n<b>i have</b> eight arms.")
    picture = page.evaluate(
        "data => new Promise(done => { const i = new Image(); i.onload = () => done([i.width, i.height]); i.src = data; })",
        "data:image/png;base64," + base64.b64encode(download(page, "Download the persona as a card (PNG)").path().read_bytes()).decode(),
    )  # fmt: skip
    assert picture == [512, 512]


def test_a_strangers_png_is_only_looked_through_for_its_card(open_page, tiny):
    page = open_page(tiny)
    pictures = page.locator("img").count()
    data = {"name": "Anna", "description": "{{char}} is a baker.", "first_mes": "hello {{user}}", "character_book": {"entries": ["x" * 300_000]}}  # fmt: skip
    card = json.dumps({"spec": "chara_card_v3", "data": data})
    chunk = b"ccv3\0" + base64.b64encode(card.encode())
    bring(page, "bomb.png", png((b"IDAT", zlib.compress(bytes(4_000_000))), (b"tEXt", chunk)))
    page.get_by_text("Left out of this card: the lorebook.").wait_for()
    expect(persona_box(page)).to_have_value("my name is Anna.\ni am a baker.")
    assert page.locator("img").count() == pictures


def test_files_that_are_none_get_one_sentence_and_change_nothing(open_page, tiny):
    page = open_page(tiny)
    text = persona_box(page).input_value()
    box(page).fill("a draft")
    no_card = "This is no character card; open a PNG or JSON card of version 2 or 3."
    for content, sentence in (
        (b"", no_card),
        (b"\x89PNG\r\n\x1a\n\xff\xff\xff\xff", no_card),
        (png((b"tEXt", b"chara\0!!not base64!!")), no_card),
        (png((b"tEXt", b"chara\0" + base64.b64encode(b"[" * 9_000))), no_card),
        (b"<script>alert(1)</script>", no_card),
        (b'{"persona_bot": 1, "persona": 3}', "That is no conversation of this page"),
        (b'{"description": "' + b"x" * 200_000 + b'"}', "This card has over 100,000 characters"),
        (bytes(9 << 20), "This file has 9 MB and at most 8 can be opened"),
    ):
        bring(page, "file", content)
        page.get_by_text(sentence).first.wait_for()
        page.get_by_test_id("toast-close").first.click(force=True)  # it moves
        page.get_by_text(sentence).first.wait_for(state="detached")
    expect(persona_box(page)).to_have_value(text)
    expect(box(page)).to_have_value("a draft")


def test_only_what_was_copied_is_called_copied(open_page, tiny):
    page = open_page(tiny)
    ask(page, "hello")
    wait_for_replies(page, 1)
    page.evaluate(
        """() => {
            navigator.clipboard.writeText = () => Promise.reject();
            window.prompt = () => null;
            window.heard = new Set();
            new MutationObserver(() => document.querySelectorAll("[data-testid=toast-body]").forEach((toast) => heard.add(toast.textContent)))
                .observe(document.body, { childList: true, subtree: true });
        }"""
    )
    copies = (
        (lambda: button(page, "Copy link").click(), "Whoever opens it meets this persona."),
        (lambda: choose(page, "Copy a link to this chat"), "Whoever opens it reads this chat"),
    )
    for copy, _ in copies:
        copy()
        page.wait_for_timeout(2000)
    assert page.evaluate("[...heard]") == []
    page.evaluate("() => { window.prompt = (_, text) => text; }")
    for copy, said in copies:
        copy()
        page.get_by_text(said).wait_for()
