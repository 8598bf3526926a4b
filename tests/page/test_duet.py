"""Two personas that talk: whose turn it is, what each hears, and that others, Stop and a visitor come in between.

Run: `python -m pytest tests/page/test_duet.py`
"""

import pytest

from page import browser_store, duet_view
from page.conversation import MAX_EXCHANGES, MAX_LINES, Conversation, Exchange
from page.duet import heard
from page.export import chat_as_text
from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE
from persona_bot.persona import Persona

ANN, BOB = Persona("Ann, baker", ("i am ann.",)), Persona("Bob", ("i am bob.",), "🤖")


def say(chat: Conversation, line: str, reply: str) -> None:
    """One line of each."""
    chat.open_line()
    chat.line = line
    chat.close_line()
    exchange = chat.claim()
    exchange.growing = reply
    chat.finish(exchange)


def test_they_take_turns_until_their_lines_are_used_up():
    chat = Conversation(ANN)
    chat.begin_talk(BOB)
    for number in range(MAX_LINES // 2):
        assert f'data-next="{MAX_LINES - 2 * number}"' in duet_view.state(chat)
        say(chat, f"line {number}", f"reply {number}")
    assert (chat.lines_left, len(chat.exchanges)) == (0, 10)
    assert "data-next" not in duet_view.state(chat) and "have talked" in duet_view.state(chat)
    chat.open_line()
    assert chat.line is None and all(e.by == BOB for e in chat.exchanges)


def test_each_hears_the_other_as_its_partner():
    chat = Conversation(ANN)
    chat.begin_talk(BOB)
    assert heard(chat.turns()) == [SILENCE]
    say(chat, "hi", "hello")
    assert chat.turns() == ["hi", "hello"] and heard(chat.turns()) == [SILENCE, "hi", "hello"]
    greeting = Conversation(ANN._replace(greeting="good morning!"))
    assert heard(greeting.turns()) == ["good morning!"]


@pytest.mark.parametrize("at", ["waiting", "speaking", "answering"])
def test_a_visitor_steps_in_at_any_moment(at):
    chat = Conversation(ANN)
    chat.begin_talk(BOB)
    say(chat, "hi", "hello")
    chat.open_line()
    stop = chat.stop
    if at != "waiting":
        chat.line = "how are"
    if at == "answering":
        chat.close_line()
        stop = chat.stop
        chat.claim().growing = "fi"
    chat.end_talk()
    chat.ask("stop, you two")
    assert stop.is_set() and chat.lines_left == 0 and chat.line is None
    said = [(e.message, e.reply, e.by) for e in chat.exchanges]
    middle = [("how are", "fi", BOB)] if at == "answering" else []
    assert said == [("hi", "hello", BOB), *middle, ("stop, you two", "", None)]


def test_stop_ends_the_talk_and_puts_no_line_of_theirs_into_the_message_box():
    chat = Conversation(ANN)
    chat.begin_talk(BOB)
    chat.open_line()
    chat.line = "hi"
    chat.close_line()
    chat.halt()
    assert (chat.unsent, chat.exchanges, chat.lines_left) == ("", [], 0)


def test_nobody_begins_while_a_reply_is_written_and_a_full_chat_ends_it():
    chat = Conversation(ANN)
    chat.ask("hi")
    with pytest.raises(UserError, match="^A reply is being written"):
        chat.begin_talk(BOB)
    full = Conversation(ANN, [Exchange("x", ANN, ["y"]) for _ in range(MAX_EXCHANGES)])
    full.begin_talk(BOB)
    full.open_line()
    assert full.line is None and full.lines_left == 0


def test_who_said_it_is_kept_and_written_down():
    chat = Conversation(ANN)
    chat.begin_talk(BOB)
    say(chat, "hi", "hello")
    again = browser_store.chat_from_json(browser_store.chat_to_json(chat))
    assert again.exchanges[0].by == BOB and again.partner is None
    assert "Bob: hi\n\nAnn: hello\n" in chat_as_text(chat)
    assert chat.undo() == ("", None)
