"""Links that hold a conversation: what goes in comes out, and nothing else gets in.

Run: `python -m pytest tests/page/test_share.py`
"""

import base64
import random
import string
import zlib

import pytest

from page.conversation import Conversation, Exchange
from page.share import MAX_LINK_CHARS, chat_from_link, chat_to_link
from persona_bot.errors import UserError
from persona_bot.persona import Persona

WILLOW = Persona(
    "Willow, gardener", ("i am willow.", "我喜欢猫。"), "🌱", "hi there!", ("Any pets?",)
)


def packed(text: bytes) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.urlsafe_b64encode(packer.compress(text) + packer.flush()).decode().rstrip("=")


def test_a_conversation_comes_out_as_it_went_in_with_the_shown_replies():
    soldier = Persona("Sam", ("i am sam.",), "🪖")
    chat = Conversation(WILLOW, own=True)
    chat.exchanges = [
        Exchange("hi <b>", WILLOW, ["hey.", "hello!"], 1),
        Exchange("💥 & ?", soldier, ["yes sir."]),
    ]
    link = chat_to_link(chat)
    assert set(link) <= set(string.ascii_letters + string.digits + "-_")
    opened = chat_from_link(link)
    assert (opened.persona, opened.own) == (WILLOW, True) and opened.id != chat.id
    assert [(e.message, e.persona, e.replies, e.shown) for e in opened.exchanges] == [
        ("hi <b>", WILLOW, ["hello!"], 0),
        ("💥 & ?", soldier, ["yes sir."], 0),
    ]


def test_a_chat_that_is_too_long_for_a_link_gets_a_clear_word():
    draw = random.Random(1)
    words = lambda: "".join(draw.choices(string.ascii_lowercase + " ", k=300))  # noqa: E731
    chat = Conversation(WILLOW, [Exchange(words(), WILLOW, [words()]) for _ in range(30)])
    with pytest.raises(
        UserError,
        match=r"^This chat is too long for a link \(\d+,\d+ characters, at most 8,000 fit\); download",
    ):
        chat_to_link(chat)


def test_without_a_reply_there_is_nothing_to_share():
    with pytest.raises(UserError, match="^There is no conversation to share yet; write a message"):
        chat_to_link(Conversation(WILLOW))


WHOLE = chat_to_link(Conversation(WILLOW, [Exchange("hi", WILLOW, ["hey."])]))


@pytest.mark.parametrize(
    "fragment",
    ["", "?", "é", "A", "AAAA", "====", WHOLE[:-6], WHOLE[6:], "x" * (MAX_LINK_CHARS + 1), None, 3,
     packed(b""), packed(b"\xff\xfe"), packed(b"[" * 50_000), packed(b"{}"), packed(b'{"persona_bot": 1}'),
     packed(b" " * 5_000_000), packed(b'{"persona_bot": 1, "persona": {"sentences": ["' + b"x" * 700_000 + b'"]}}')],
)  # fmt: skip
def test_whatever_else_a_link_holds_gets_one_sentence(fragment):
    with pytest.raises(UserError) as error:
        chat_from_link(fragment)
    assert str(error.value).count(".") <= 2 and "\n" not in str(error.value)
