"""The conversation a server keeps for a visitor.

Run: `python -m pytest tests/page/test_conversation.py`
"""

import copy

import pytest

from page.conversation import MAX_EXCHANGES, MAX_REPLIES, Conversation
from page.typed import NAMELESS
from persona_bot.errors import UserError
from persona_bot.persona import MAX_MESSAGE_CHARS, Persona, persona_text
from tests.page.said import GREEN, PRESETS, SOLDIER, answer, said, texts


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


def test_a_name_and_a_face_that_were_chosen_stay_until_another_persona_is_opened():
    chat = said()
    chat.rename(name="Gwendolyn, beekeeper")
    chat.rewrite("i keep bees.", PRESETS)
    assert chat.persona == NAMELESS._replace(
        name="Gwendolyn, beekeeper", sentences=("i keep bees.",)
    )
    chat.rename(face="🐝")
    chat.rewrite(persona_text(SOLDIER), PRESETS)
    assert chat.persona == SOLDIER._replace(name="Gwendolyn, beekeeper", face="🐝") and chat.own
    chat.fresh()
    chat.rewrite("i keep bees.", PRESETS)
    assert (chat.persona.name, chat.persona.face) == ("Gwendolyn, beekeeper", "🐝")
    for leave in (lambda: chat.fresh(GREEN), lambda: chat.open(said())):
        leave()
        chat.rewrite("i bake.", PRESETS)
        assert chat.persona == NAMELESS._replace(sentences=("i bake.",))
        chat.undo()
        chat.rewrite("i keep wasps.", PRESETS)
        assert (chat.persona.name, chat.persona.face) == ("Gwendolyn, beekeeper", "🐝")


def test_a_persona_over_the_limit_leaves_the_last_one_in_force():
    chat = said()
    with pytest.raises(UserError, match="Line 2"):
        chat.rewrite("fine.\n" + "x" * 201, PRESETS)
    assert chat.persona == GREEN


def test_a_conversation_can_be_copied_for_a_new_session():
    # gr.State does this for every visitor
    chat = Conversation(GREEN)
    assert copy.deepcopy(chat) == chat
