"""The conversation a server keeps for a visitor, and what of it the page shows.

Run: `python -m pytest tests/page/test_conversation.py`
"""

import copy
from html.parser import HTMLParser
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page import render
from page.conversation import MAX_EXCHANGES, NAMELESS, Conversation
from persona_bot.errors import UserError
from persona_bot.persona import (
    MAX_MESSAGE_CHARS,
    Persona,
    load_presets,
    parse_persona,
    persona_text,
)

PRESETS = load_presets()
GREEN, SOLDIER = PRESETS["environmentalist"], PRESETS["soldier"]


def said(*pairs: tuple[str, str], persona: Persona = GREEN) -> Conversation:
    """A conversation in which these messages were answered with these replies."""
    chat = Conversation(persona)
    for message, reply in pairs:
        chat.ask(message)
        answer(chat, reply)
    return chat


def answer(chat: Conversation, reply: str) -> None:
    exchange = chat.claim()
    exchange.reply = reply
    chat.finish(exchange)


def texts(chat: Conversation) -> list[tuple[str, str]]:
    return [(exchange.message, exchange.reply) for exchange in chat.exchanges]


def test_turns_alternate_and_end_with_the_open_message():
    chat = said(("hi", "hello"), ("how are you?", "fine"))
    assert chat.turns() == ["hi", "hello", "how are you?", "fine"]
    chat.ask("  and now?\n")
    assert chat.turns() == ["hi", "hello", "how are you?", "fine", "and now?"]


def test_a_second_message_waits_for_the_first_reply():
    chat = said()
    chat.ask("one")
    with pytest.raises(UserError, match="A reply is being written"):
        chat.ask("two")
    for call in (chat.retry, chat.undo, lambda: chat.edit(0)):
        with pytest.raises(UserError, match="A reply is being written"):
            call()
    assert texts(chat) == [("one", "")]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("", "Write a message first."),
        (" \n\t", "Write a message first."),
        ("a" * (MAX_MESSAGE_CHARS + 1), "has 1,001 characters"),
        (None, "text"),
    ],
)
def test_messages_that_are_refused(message, complaint):
    chat = said(("hi", "hello"))
    with pytest.raises(UserError, match=complaint):
        chat.ask(message)
    assert texts(chat) == [("hi", "hello")] and chat.pending is None


def test_half_a_surrogate_pair_is_replaced():
    chat = said()
    chat.ask("hi \ud83d there")
    assert chat.turns() == ["hi ? there"]


def test_the_longest_message_is_taken():
    chat = said()
    chat.ask("a" * MAX_MESSAGE_CHARS)
    assert chat.turns() == ["a" * MAX_MESSAGE_CHARS]


def test_only_the_first_who_claims_gets_the_exchange():
    chat = said()
    assert chat.claim() is None
    chat.ask("hi")
    assert chat.claim() is chat.exchanges[0]
    assert chat.claim() is None


def test_a_reply_that_stays_empty_gives_the_message_back():
    chat = said(("hi", "hello"))
    chat.ask("how are you?")
    answer(chat, "")
    assert (
        texts(chat) == [("hi", "hello")] and chat.unsent == "how are you?" and chat.pending is None
    )


def test_retry_replaces_the_last_reply_and_keeps_it_when_nothing_comes():
    chat = said(("hi", "hello"), ("a?", "b"))
    chat.retry()
    assert chat.turns() == ["hi", "hello", "a?"]
    answer(chat, "")
    assert texts(chat) == [("hi", "hello"), ("a?", "b")] and chat.unsent == ""
    chat.retry()
    answer(chat, "c")
    assert texts(chat) == [("hi", "hello"), ("a?", "c")]
    with pytest.raises(UserError, match="no reply to try again"):
        said().retry()


def test_an_edited_message_replaces_itself_and_all_that_follows():
    chat = said(("one", "1"), ("two", "2"), ("three", "3"))
    assert chat.edit(1) == "two"
    chat.ask("zwei")
    assert chat.turns() == ["one", "1", "zwei"] and chat.editing is None
    answer(chat, "2!")
    assert texts(chat) == [("one", "1"), ("zwei", "2!")]


def test_an_edit_without_a_reply_changes_nothing():
    chat = said(("one", "1"), ("two", "2"))
    chat.edit(0)
    chat.ask("eins")
    answer(chat, "")
    assert texts(chat) == [("one", "1"), ("two", "2")] and chat.unsent == "eins"


@pytest.mark.parametrize("index", [-1, 1, 10**9, None, "0", 0.0, [0]])
def test_edits_of_messages_that_are_not_there(index):
    chat = said(("one", "1"))
    with pytest.raises(UserError, match="no longer there"):
        chat.edit(index)
    assert chat.editing is None


def test_undo_takes_back_exchange_by_exchange():
    chat = said(("one", "1"), ("two", "2"))
    assert [chat.undo(), chat.undo()] == ["two", "one"]
    with pytest.raises(UserError, match="nothing to undo"):
        chat.undo()


def test_undo_after_a_fresh_start_brings_the_old_chat_back_once():
    chat = said(("one", "1"))
    chat.fresh(SOLDIER)
    assert texts(chat) == [] and chat.persona == SOLDIER
    assert chat.undo() == "" and texts(chat) == [("one", "1")] and chat.persona == GREEN
    chat.fresh()
    assert chat.persona == GREEN
    chat.ask("new")
    answer(chat, "chat")
    assert chat.undo() == "new"
    chat.undo()
    assert texts(chat) == [("one", "1")]


def test_a_reply_that_ends_after_a_fresh_start_is_dropped():
    chat = said()
    chat.ask("hi")
    exchange, stop = chat.claim(), chat.stop
    exchange.reply = "hel"
    chat.fresh()
    assert stop.is_set()
    chat.ask("you there?")
    chat.finish(exchange)
    assert chat.turns() == ["you there?"] and chat.pending is chat.exchanges[0]


def test_halt_ends_a_running_reply_and_takes_back_a_waiting_message():
    chat = said()
    chat.ask("waits")
    chat.halt()
    assert texts(chat) == [] and chat.unsent == "waits" and chat.claim() is None
    chat.ask("runs")
    exchange = chat.claim()
    exchange.reply = "half a"
    chat.halt()
    assert chat.stop.is_set() and chat.pending is exchange
    chat.finish(exchange)
    assert texts(chat) == [("runs", "half a")]


def test_a_chat_has_an_end():
    chat = said(*[("a", "b")] * MAX_EXCHANGES)
    with pytest.raises(UserError, match="start a new one"):
        chat.ask("one more")
    chat.retry()
    assert len(chat.exchanges) == MAX_EXCHANGES


def test_a_rewritten_persona_keeps_name_and_face_while_a_sentence_is_left():
    chat = said()
    chat.rewrite(persona_text(GREEN) + "\nsuddenly i love cars.", PRESETS)
    assert (chat.persona.name, chat.persona.face) == (
        GREEN.name,
        GREEN.face,
    ) and chat.persona.sentences[-1] == "suddenly i love cars."
    chat.rewrite(persona_text(SOLDIER), PRESETS)
    assert chat.persona == SOLDIER
    chat.rewrite("i am a baker.", PRESETS)
    assert (chat.persona.name, chat.persona.face) == (NAMELESS.name, NAMELESS.face)
    chat.rewrite("# 🍞 Baker\ni am a baker.", PRESETS)
    assert chat.persona == Persona("Baker", ("i am a baker.",), "🍞")


def test_a_persona_over_the_limit_leaves_the_last_one_in_force():
    chat = said()
    with pytest.raises(UserError, match="Line 2"):
        chat.rewrite("fine.\n" + "x" * 201, PRESETS)
    assert chat.persona == GREEN


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


def test_each_reply_keeps_the_face_of_its_persona():
    chat = said(("one", "1"))
    chat.persona = SOLDIER
    chat.ask("two")
    answer(chat, "2")
    faces = [
        part[: part.index("<")]
        for part in render.transcript(chat).split('class="face" aria-hidden="true">')[1:]
    ]
    assert faces == [GREEN.face, SOLDIER.face]


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
        lambda t, p: render.cards({"a": p}, p),
        lambda t, p: render.model_line(t, t),
    ):
        shape = Shape(show(text, hostile))
        assert shape.tags == Shape(show("plain", plain)).tags
    assert text in Shape(render.transcript(said((text, text)))).text


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
    assert query(Persona("", ("i am 100% <b> & co?",))) == ["i am 100% <b> & co?"]
    assert query(Persona("", ("one.", "two #2."))) == ["one.\ntwo #2."]
    maja = Persona("Maja, baker", ("i bake.",), "🍞")
    assert query(maja) == ["# 🍞 Maja, baker\ni bake."] and parse_persona(query(maja)[0]) == maja


def test_the_counter_counts_or_names_the_line():
    assert "<b>2</b>/12" in render.counter("one.\n\ntwo.")
    assert "Line 13" in render.counter("\n".join(f"i am {n}." for n in range(13)))
    assert "data-over" in render.counter("x" * 201)


@pytest.mark.parametrize(
    ("used", "expected"), [(0, "100 %"), (482, "50 %"), (964, "forgotten"), (5000, "forgotten")]
)
def test_the_status_line_shows_the_room_that_is_left(used, expected):
    assert expected in render.status(said(), used, 964)


def test_a_conversation_can_be_copied_for_a_new_session():
    # gr.State does this for every visitor
    assert copy.deepcopy(Conversation(GREEN)) == Conversation(GREEN)
