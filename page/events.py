"""What the page does when something is pressed or typed: functions from the conversation to the components' new values."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import gradio as gr

from page import backend, browser_store, cast, duet_view, render, why
from page.chosen import chosen_settings
from page.conversation import Conversation
from page.typed import NAMELESS
from persona_bot.errors import UserError
from persona_bot.persona import Persona, check_message, load_presets, persona_text, random_persona

PRESETS = load_presets()
FIRST = next(iter(PRESETS.values()))
FRAME_SECONDS = 0.05  # a growing reply is redrawn at most this often if CROWD or fewer are written:
CROWD = 4  # drawing costs Gradio as much as the words cost the model


class Shown(NamedTuple):
    """Everything that is derived from the conversation: in `blocks.py` the components, here their values."""

    cards: Any
    header: Any
    transcript: Any
    growing: Any
    status: Any
    retry: Any
    undo: Any
    own_face: Any
    record: Any
    duet: Any
    why: Any


class ShownPersona(NamedTuple):
    """The persona's name, its text and what is said about it."""

    name: Any
    text: Any
    counter: Any


@contextmanager
def toast() -> Iterator[None]:
    """Shows an error that a visitor can cause as a hint, and ends the chain of events."""
    try:
        yield
    except UserError as error:
        gr.Info(str(error), title="")
        raise gr.Error(str(error), visible=False, print_exception=False) from None


def shown(chat: Conversation) -> Shown:
    writing, something = chat.writing, bool(chat.exchanges)
    usage = backend.context_usage(chat.persona, chat.turns(), chat.settings)
    return Shown(
        cards=cast.cards(PRESETS, chat.persona),
        header=render.header(chat.persona, PRESETS),
        transcript=render.transcript(chat),
        growing=render.growing(chat),
        status=render.status(chat, *usage),
        retry=gr.update(interactive=something and not writing),
        undo=gr.update(interactive=(something or bool(chat.before)) and not writing),
        own_face=cast.own_face(chat.persona),
        record=render.record(browser_store.chat_to_json(chat)),
        duet=duet_view.state(chat),
        why=why.drawn(chat),
    )


def shown_persona(persona: Persona, text: str | None = None) -> ShownPersona:
    text = persona_text(persona) if text is None else text
    return ShownPersona(
        "" if persona.name == NAMELESS.name else persona.name, text, render.counter(text)
    )


def with_what_was_good(chat: Conversation, text: str) -> None:
    """Reads the persona's text; over a limit the last good text stays in force, and the counter says which line."""
    with suppress(UserError):
        chat.rewrite(text, PRESETS)


def pick(who: str, text: str, chat: Conversation) -> list:
    """A card was pressed: a new chat with that persona, drawn afresh unless it is a preset."""
    chat.fresh(PRESETS.get(who) or random_persona(random.randrange(2**32)), text)
    return [*shown_persona(chat.persona), *shown(chat)]


def open_chat(message: str, text: str, chat: Conversation, event: gr.EventData) -> list:
    """An earlier chat was chosen; the browser brings it."""
    with toast():
        chat.open(browser_store.chat_from_json(event.text), text)
    return [with_unsent(chat, message), *shown_persona(chat.persona), *shown(chat)]


def open_persona(text: str, chat: Conversation, event: gr.EventData) -> list:
    """The card of a persona that somebody wrote was pressed; the browser brings it."""
    with toast():
        persona = browser_store.persona_from_dict(browser_store.parse_json(event.text))
        chat.fresh(persona, text)
        chat.own = True
    return [*shown_persona(chat.persona), *shown(chat)]


def rewrite(text: str | None, chat: Conversation) -> list:
    """The persona's text was edited, unless it is None; its new name, if any, is for the browser to put where none is typed."""
    name = chat.persona.name
    counter: Any = gr.skip()
    if text is not None:
        with_what_was_good(chat, text)
        counter = render.counter(text)
    new_name = None if chat.persona.name == name else shown_persona(chat.persona).name
    return [new_name, counter, *shown(chat)]


def rename(name: str | None, chat: Conversation) -> Shown:
    chat.rename(name=name)
    return shown(chat)


def choose_face(chat: Conversation, event: gr.EventData) -> Shown:
    chat.rename(face=event.face)
    return shown(chat)


def send(message: str, text: str, chat: Conversation) -> Shown:
    """Opens an exchange with the message; an error leaves everything as it was."""
    with toast():
        check_message(message)
        chat.rewrite(text, PRESETS)
        chat.end_talk()  # the visitor steps in
        chat.ask(message)
    return shown(chat)


def send_starter(text: str, chat: Conversation, event: gr.EventData) -> Shown:
    """Opens an exchange with the conversation starter that was pressed."""
    with toast():
        chat.rewrite(text, PRESETS)
        chat.ask(event.message)
    return shown(chat)


def retry(text: str, chat: Conversation) -> Shown:
    """Asks for one more reply to the last message."""
    with toast():
        chat.rewrite(text, PRESETS)
        chat.retry()
    return shown(chat)


def show(chat: Conversation, event: gr.EventData) -> Shown:
    """Moves to another reply of the last exchange."""
    with toast():
        chat.show(_number(event.number), {"1": 1, "-1": -1}.get(str(event.step)))
    return shown(chat)


def edit(chat: Conversation, event: gr.EventData) -> list:
    """Puts an earlier message into the message box; the next send replaces it and all that followed."""
    with toast():
        message = chat.edit(_number(event.number))
    return [message, *shown(chat)]


def _number(value: object) -> int | None:
    digits = str(value)
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 9 else None


def stop_editing(chat: Conversation) -> Shown:
    chat.editing = None
    return shown(chat)


def undo(message: str, text: str, chat: Conversation) -> list:
    """Takes back the last exchange or the last fresh start; its message returns to the box, in front of a draft."""
    with toast():
        taken_back, former_text = chat.undo()
    if taken_back and message not in ("", chat.returned):
        taken_back = f"{taken_back} {message}"
    chat.returned = taken_back
    return [
        taken_back or gr.skip(),
        *shown_persona(chat.persona, text if former_text is None else former_text),
        *shown(chat),
    ]


def fresh(text: str, chat: Conversation) -> Shown:
    chat.fresh(text=text)
    return shown(chat)


def halt(message: str, chat: Conversation) -> list:
    """Ends the reply, or takes back the message that still waits for its turn."""
    chat.halt()
    return settle(message, chat)


def frame_seconds() -> float:
    """How long a drawn state of a reply stays at least."""
    return FRAME_SECONDS * max(1, len(backend.running) / CROWD)


def reply(chat: Conversation, *values: Any) -> Iterator[str]:
    """Writes the open exchange, piece by piece; waits for the model if need be."""
    exchange, stop = chat.claim(), chat.stop
    if exchange is None or stop is None:  # stopped while it waited in the queue
        return
    turns = chat.turns()
    drafts: tuple[str, ...] = ()
    try:
        chat.settings = settings = chosen_settings(values)
        while not backend.ready.wait(1) and not stop.is_set():
            yield render.growing(chat)
        if stop.is_set():
            return
        drawn = 0.0
        for progress in backend.write(exchange.persona, turns, settings, stop):
            exchange.growing, drafts = progress.text, progress.drafts
            if time.monotonic() - drawn >= frame_seconds():
                yield render.growing(chat)
                drawn = time.monotonic()
        chat.tokens_per_second = progress.tokens / progress.seconds if progress.seconds else None
    except UserError as error:
        gr.Warning(str(error), title="")
    finally:  # also when the visitor leaves
        stop.set()
        chat.finish(exchange, drafts)


def settle(message: str, chat: Conversation) -> list:
    """After a reply."""
    return [with_unsent(chat, message), *shown(chat)]


def with_unsent(chat: Conversation, message: str) -> Any:
    """What could not be sent goes back into the message box, in front of what was typed meanwhile."""
    unsent, chat.unsent = chat.unsent, ""
    return f"{unsent} {message}".strip() if unsent else gr.skip()
