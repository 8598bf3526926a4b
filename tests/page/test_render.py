"""What the page shows of a conversation, as HTML.

Run: `python -m pytest tests/page/test_render.py`
"""

from html.parser import HTMLParser
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page import browser_store, cast, faces, render
from page.conversation import Conversation
from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE
from persona_bot.persona import Persona, parse_persona, persona_text
from tests.page.said import GREEN, PRESETS, SOLDIER, answer, said


def test_the_transcript_shows_where_the_persona_changed():
    chat = said(("one", "1"))
    assert "persona changed" not in render.transcript(chat)
    chat.rewrite("i am a baker.", PRESETS)
    assert "It counts from the next reply" in render.transcript(chat)
    chat.ask("two")
    shown = render.transcript(chat)
    assert shown.count("The persona changed here.") == 1 and "next reply" not in shown
    answer(chat, "2")
    chat.rewrite(persona_text(GREEN), PRESETS)
    assert render.transcript(chat).count('class="notice"') == 2


def test_each_reply_keeps_the_name_and_the_face_of_its_persona():
    chat = said(("one", "1"))
    chat.persona = SOLDIER
    chat.ask("two")
    answer(chat, "2")
    shown = render.transcript(chat)
    replies = shown[shown.index("one") :].split('<li class="them"')[1:]
    assert [GREEN.called in replies[0], SOLDIER.called in replies[1]] == [True, True]
    assert [faces.face(p.face) in reply for p, reply in zip((GREEN, SOLDIER), replies, strict=True)]


def test_a_frame_of_a_growing_reply_carries_that_reply_only():
    sizes = []
    for count in (1, 50, 199):
        chat = said(*[("how are you today?", "i am fine, and you?")] * count)
        chat.ask("and now?")
        chat.claim().growing = "i am writing."
        frame = render.growing(chat)
        assert "i am writing." in frame and "fine" not in frame
        sizes.append(len(frame.replace(f'"{count}"', '""')))
        assert "i am writing." not in render.transcript(chat)
    assert sizes[0] == sizes[1] == sizes[2] < 600


def test_a_greeting_opens_the_chat_and_is_told_to_the_model():
    maja = Persona("Maja, baker", ("i bake.",), "🍞", "hi! bread?", ("What do you bake?",))
    chat = Conversation(maja)
    shown = render.transcript(chat)
    assert "hi! bread?" in shown and "What do you bake?" in shown
    chat.ask("yes please")
    assert chat.turns() == [SILENCE, "hi! bread?", "yes please"]
    answer(chat, "here.")
    chat.rewrite("i am somebody else.", PRESETS)
    assert chat.turns()[1] == "hi! bread?" and "hi! bread?" in render.transcript(chat)


class Shape(HTMLParser):
    """The tags, attributes and text of some HTML."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, sorted(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text.append(data)


def growing(text: str) -> Conversation:
    chat = said()
    chat.ask("hi")
    chat.claim().growing = text
    return chat


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</p></li></ol><form action=//evil.example>",
    "&lt;b&gt; &#60;b&#62;",
    "![x](http://evil.example/x.png)",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)}",
    "<!-- <style>*{display:none}</style>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_changes_no_tag(text):
    plain, hostile = (Persona(t, (t,), "🌱") for t in ("plain", text))
    for show in (
        lambda t, p: render.transcript(said((t, t), persona=p)),
        lambda t, p: render.transcript(Conversation(p)),
        lambda t, p: render.header(p, PRESETS),
        lambda t, p: cast.cards({"a": p}, p),
        lambda t, p: render.model_line(t, t),
        lambda t, p: cast.own_face(p._replace(face=t)),
        lambda t, p: render.transcript(Conversation(p._replace(greeting=t, starters=(t,), face=t))),
        lambda t, p: render.growing(growing(t)),
        lambda t, p: render.record(browser_store.chat_to_json(said((t, t), persona=p))),
    ):
        shape = Shape(show(text, hostile))
        assert shape.tags == Shape(show("plain", plain)).tags
    assert text in Shape(render.transcript(said((text, text)))).text


@settings(deadline=None)  # a busy machine is no fault of the text
@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_survives_the_transcript_exactly(text):
    chat = said()
    try:
        chat.ask("a" + text)
    except UserError:
        return
    answer(chat, "b" + text)
    shape = Shape(render.transcript(chat).replace("\r", "&#13;").replace("\0", "&#0;"))
    assert len(shape.tags) == len(Shape(render.transcript(said(("a", "b")))).tags)


def test_a_link_carries_a_preset_by_its_slug_and_other_personas_by_their_text():
    def query(persona):
        link = render.header(persona, PRESETS).split('data-link="')[1].split('"')[0]
        return parse_qs(link.removeprefix("?"), strict_parsing=True)["persona"]

    assert query(SOLDIER) == ["soldier"]
    for persona in (
        Persona("", ("i am 100% <b> & co?",)),
        Persona("", ("one.", "two #2.")),
        Persona("Maja, baker", ("i bake.",), "🍞", "hello & hi!", ("Bread?",)),
        SOLDIER._replace(name="Tom"),
    ):
        assert parse_persona(query(persona)[0]) == persona


def test_the_counter_counts_or_names_the_line():
    assert "<b>2</b>/12" in render.counter("one.\n\ntwo.")
    assert "Line 13" in render.counter("\n".join(f"i am {n}." for n in range(13)))
    assert "data-over" in render.counter("x" * 201)


@pytest.mark.parametrize(
    ("used", "expected"),
    [(0, None), (482, None), (700, "27 % of its memory left"), (964, "forgets"), (5000, "forgets")],
)
def test_the_memory_is_mentioned_when_little_is_left(used, expected):
    shown = render.status(said(), used, 964)
    assert expected in shown if expected else "memory" not in shown
