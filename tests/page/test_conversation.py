"""The conversation a server keeps for a visitor, and what of it the page shows.

Run: `python -m pytest tests/page/test_conversation.py`
"""

import copy
from html.parser import HTMLParser
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page import browser_store, cast, faces, render
from page.conversation import MAX_EXCHANGES, MAX_REPLIES, Conversation
from page.typed import NAMELESS
from persona_bot.errors import UserError
from persona_bot.persona import (
    MAX_MESSAGE_CHARS,
    Persona,
    load_presets,
    parse_persona,
    persona_text,
)
from persona_bot.prompt import SILENCE

# a greeting is told apart (test_a_greeting_opens_the_chat)
PRESETS = {slug: persona._replace(greeting="") for slug, persona in load_presets().items()}
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
    exchange.growing = reply
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


def test_retry_adds_a_reply_and_keeps_the_others_when_nothing_comes():
    chat = said(("hi", "hello"), ("a?", "b"))
    chat.retry()
    assert chat.turns() == ["hi", "hello", "a?"]
    answer(chat, "")
    assert texts(chat) == [("hi", "hello"), ("a?", "b")] and chat.unsent == ""
    chat.retry()
    answer(chat, "c")
    assert texts(chat) == [("hi", "hello"), ("a?", "c")]
    assert chat.exchanges[-1].replies == ["b", "c"]
    with pytest.raises(UserError, match="no reply to try again"):
        said().retry()


def test_the_reply_that_is_shown_is_the_one_the_conversation_goes_on_from():
    chat = said(("hi", "a"))
    for reply in ("b", "c"):
        chat.retry()
        answer(chat, reply)
    shown = [chat.exchanges[-1].reply]
    for step in (1, 1, -1, -1):
        chat.show(0, step)
        shown.append(chat.exchanges[-1].reply)
    assert shown == ["c", "a", "b", "a", "c"]
    chat.show(0, -1)
    chat.ask("next")
    assert chat.turns() == ["hi", "b", "next"]
    with pytest.raises(UserError, match="A reply is being written"):
        chat.show(0, 1)
    answer(chat, "d")
    for index, step in ((0, 1), (1, 2), (1, None), (9, 1), (None, 1)):
        with pytest.raises(UserError):
            chat.show(index, step)
    assert chat.turns() == ["hi", "b", "next", "d"]


def test_a_message_has_so_many_replies_at_most():
    chat = said(("hi", "a"))
    for _ in range(MAX_REPLIES - 1):
        chat.retry()
        answer(chat, "b")
    with pytest.raises(UserError, match="has 20 replies"):
        chat.retry()
    assert len(chat.exchanges[0].replies) == MAX_REPLIES and chat.pending is None


def test_drafts_become_alternatives_the_best_first():
    chat = said()
    chat.ask("hi")
    exchange = chat.claim()
    exchange.growing = "best"
    chat.finish(exchange, ["best", "second", "", "third"])
    assert exchange.replies == ["best", "second", "third"] and exchange.reply == "best"


def test_a_reply_tried_again_is_the_new_personas_only_when_one_comes():
    chat = said(("hi", "a"))
    chat.persona = SOLDIER
    chat.retry()
    assert chat.exchanges[0].persona == SOLDIER
    answer(chat, "")
    assert chat.exchanges[0].persona == GREEN
    chat.retry()
    answer(chat, "b")
    assert chat.exchanges[0].persona == SOLDIER


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
    assert [chat.undo(), chat.undo()] == [("two", None), ("one", None)]
    with pytest.raises(UserError, match="nothing to undo"):
        chat.undo()


def test_undo_brings_back_what_an_edited_message_replaced():
    chat = said(("one", "1"), ("two", "2"))
    chat.edit(0)
    chat.ask("eins")
    answer(chat, "1!")
    assert chat.undo() == ("eins", None) and texts(chat) == [("one", "1"), ("two", "2")]


def test_undo_after_fresh_starts_brings_everything_back_step_by_step():
    chat = said(("one", "1"))
    former = chat.id
    chat.fresh(SOLDIER, "i am a text over a limit")
    drawn = Persona("Maja, baker", ("i bake.",), "🍞")
    chat.fresh(drawn)
    chat.fresh()
    assert texts(chat) == [] and chat.persona == drawn and chat.id != former
    assert chat.undo() == ("", "i bake.") and chat.persona == drawn
    assert chat.undo() == ("", persona_text(SOLDIER)) and chat.persona == SOLDIER
    assert chat.undo() == ("", "i am a text over a limit")
    assert texts(chat) == [("one", "1")] and chat.persona == GREEN and chat.id == former


def test_a_persona_that_was_only_written_comes_back_too():
    chat = said()
    chat.rewrite("i am mine.", PRESETS)
    assert chat.own
    chat.fresh(SOLDIER, "i am mine.\nand half a sent")
    assert not chat.own
    assert chat.undo() == ("", "i am mine.\nand half a sent")
    assert chat.persona.sentences == ("i am mine.",) and chat.own


@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize("begin_anew", [lambda c: c.fresh(), lambda c: c.open(said(("x", "y")))])
def test_a_fresh_start_before_the_first_word_leaves_no_empty_reply(claimed, begin_anew):
    chat = said(("one", "1"))
    chat.ask("hi")
    exchange = chat.claim() if claimed else None
    begin_anew(chat)
    if claimed:
        exchange.growing = "too late"
        chat.finish(exchange)
    chat.exchanges.clear()
    assert chat.undo() == ("hi", persona_text(GREEN))
    assert texts(chat) == [("one", "1")] and chat.turns() == ["one", "1"]


def test_what_was_written_before_a_fresh_start_is_kept_with_it():
    chat = said()
    chat.ask("hi")
    exchange = chat.claim()
    exchange.growing = "half a"
    chat.fresh()
    chat.undo()
    assert texts(chat) == [("hi", "half a")] and chat.pending is None


def test_a_reply_that_ends_after_a_fresh_start_is_dropped():
    chat = said()
    chat.ask("hi")
    exchange, stop = chat.claim(), chat.stop
    exchange.growing = "hel"
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
    exchange.growing = "half a"
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


def test_a_conversation_can_be_copied_for_a_new_session():
    # gr.State does this for every visitor
    chat = Conversation(GREEN)
    assert copy.deepcopy(chat) == chat
