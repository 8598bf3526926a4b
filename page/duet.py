"""Let them talk: a second persona says what a visitor would say, and the two go on until somebody stops them.

Each line is a job of its own in the page's queue, so that others have their turn between any two:

    listen (opens a line) -> speak (writes it) -> answer (opens the exchange) -> events.reply -> settle, and again
"""

import random
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from page import backend, browser_store, render
from page.chosen import chosen_settings
from page.conversation import Conversation
from page.events import PRESETS, Shown, frame_seconds, shown, toast
from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE
from persona_bot.persona import MAX_MESSAGE_CHARS, random_persona


def begin(chat: Conversation, event: gr.EventData) -> Shown:
    """Somebody was chosen: a preset, somebody random, or a persona that the browser kept."""
    with toast():
        who = str(event.who)
        if who == "own":
            partner = browser_store.persona_from_dict(browser_store.parse_json(event.text))
        else:
            partner = PRESETS.get(who) or random_persona(random.randrange(2**32))
        chat.begin_talk(partner)
    return shown(chat)


def listen(chat: Conversation) -> Shown:
    """Opens the second persona's next line, unless somebody has stopped them."""
    chat.open_line()
    return shown(chat)


def speak(chat: Conversation, *values: Any) -> Iterator[str]:
    """Writes the open line, piece by piece."""
    partner, stop = chat.partner, chat.stop
    # stopped while it waited in the queue
    if chat.line is None or partner is None or stop is None:
        return
    finished = False
    try:
        settings = chosen_settings(values)
        while not backend.ready.wait(1) and not stop.is_set():
            yield render.growing(chat)
        drawn = 0.0
        for progress in backend.write(partner, heard(chat.turns()), settings, stop):
            if stop.is_set() or chat.stop is not stop:
                return
            chat.line = progress.text[:MAX_MESSAGE_CHARS]
            if time.monotonic() - drawn >= frame_seconds():
                yield render.growing(chat)
                drawn = time.monotonic()
        finished = True
    except UserError as error:
        gr.Warning(str(error), title="")
    finally:  # also when the visitor leaves
        stop.set()
        if not finished and chat.stop is stop:
            chat.end_talk()


def heard(turns: list[str]) -> list[str]:
    """A chat's turns as the second persona hears them: what the first one said is its partner's."""
    return turns[1:] if turns[:1] == [SILENCE] else [SILENCE, *turns]


def answer(chat: Conversation) -> Shown:
    """The line is said: the first persona is asked for its reply."""
    with toast():
        chat.close_line()
    return shown(chat)
