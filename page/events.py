"""What the page does when something is pressed or typed: functions from the conversation to the components' new values."""

import random
import time
from contextlib import contextmanager

import gradio as gr

from page import backend, render
from page.conversation import NAMELESS, Conversation, check_message
from persona_bot.errors import UserError
from persona_bot.persona import load_presets, persona_text, random_persona
from persona_bot.replies.reply import Settings

PRESETS = load_presets()
FIRST = next(iter(PRESETS.values()))
FRAME_SECONDS = 0.05  # a growing reply is redrawn at most this often ..
# .. while at most so many are written; drawing costs Gradio as much as the words cost the model
CROWD = 4


@contextmanager
def toast():
    """Shows an error that a visitor can cause as a hint, and ends the chain of events."""
    try:
        yield
    except UserError as error:
        gr.Warning(str(error))
        raise gr.Error(str(error), visible=False, print_exception=False) from None


def shown(chat: Conversation) -> list:
    """Values for the components in SHOWN, all of them derived from the conversation."""
    writing, something = chat.pending is not None, bool(chat.exchanges)
    return [
        render.cards(PRESETS, chat.persona),
        render.header(chat.persona, PRESETS),
        render.transcript(chat),
        render.status(chat, *backend.room(chat.persona, chat.turns())),
        gr.update(visible=not writing),
        gr.update(visible=writing),
        gr.update(interactive=something and not writing),
        gr.update(interactive=(something or chat.before is not None) and not writing),
        gr.update(visible=chat.editing is not None),
    ]


def shown_with_persona(chat: Conversation) -> list:
    """Values for SHOWN_WITH_PERSONA: the text box follows the conversation's persona."""
    text = persona_text(chat.persona)
    return [text, render.counter(text), *shown(chat)]


def opened(chat: Conversation, request: gr.Request):
    """A visit begins, perhaps by a link that brings a persona; ends when the model is there."""
    wanted = request.query_params.get("persona", "")
    text = (
        persona_text(PRESETS.get(wanted.strip().lower(), FIRST))
        if not wanted or wanted.strip().lower() in PRESETS
        else wanted
    )
    try:
        chat.rewrite(text, PRESETS)
        text = persona_text(chat.persona)
    except UserError as error:
        chat.persona = NAMELESS
        gr.Warning(str(error))
    while not backend.ready.is_set():
        yield [render.model_line(None, ""), text, render.counter(text), *shown(chat)]
        backend.ready.wait(1)
    yield [
        render.model_line(backend.checkpoint.name, backend.place()),
        text,
        render.counter(text),
        *shown(chat),
    ]


def pick(chat: Conversation, event: gr.EventData):
    """A card was pressed: a new chat with that persona, drawn afresh unless it is a preset."""
    preset = PRESETS.get(str(event.who))
    chat.fresh(preset or random_persona(random.randrange(2**32)))
    return shown_with_persona(chat)


def rewrite(text: str, chat: Conversation):
    """The persona's text was edited; over a limit the counter says which line, and the last good text stays in force."""
    try:
        chat.rewrite(text, PRESETS)
    except UserError:
        pass
    return [render.counter(text), *shown(chat)]


def send(message: str, text: str, chat: Conversation):
    """Opens an exchange with the message; an error leaves both text boxes as they are."""
    with toast():
        check_message(message)
        chat.rewrite(text, PRESETS)
        chat.ask(message)
    return ["", *shown(chat)]


def send_starter(text: str, chat: Conversation, event: gr.EventData):
    """Opens an exchange with the conversation starter that was pressed."""
    with toast():
        chat.rewrite(text, PRESETS)
        chat.ask(event.message)
    return shown(chat)


def retry(text: str, chat: Conversation):
    """Asks for another reply to the last message."""
    with toast():
        chat.rewrite(text, PRESETS)
        chat.retry()
    return shown(chat)


def edit(chat: Conversation, event: gr.EventData):
    """Puts an earlier message into the message box; the next send replaces it and all that followed."""
    with toast():
        number = str(event.number)
        message = chat.edit(int(number) if number.isdecimal() else None)
    return [message, *shown(chat)]


def stop_editing(chat: Conversation):
    chat.editing = None
    return ["", *shown(chat)]


def undo(message: str, chat: Conversation):
    """Takes back the last exchange; its message returns to the box, unless something else is being written there."""
    with toast():
        taken_back = chat.undo()
    return [message or taken_back, *shown_with_persona(chat)]


def fresh(chat: Conversation):
    chat.fresh()
    return shown(chat)


def halt(message: str, chat: Conversation):
    """Ends the reply, or takes back the message that still waits for its turn."""
    chat.halt()
    return settle(message, chat)


def link_copied():
    gr.Info("Whoever opens it meets this persona.", title="Link copied", duration=4)


def frame_seconds() -> float:
    """How long a drawn state of a reply stays at least."""
    return FRAME_SECONDS * max(1, len(backend.running) / CROWD)


def reply(chat: Conversation, *values):
    """Writes the open exchange, piece by piece; waits for the model if need be."""
    exchange = chat.claim()
    if exchange is None:  # stopped while it waited in the queue
        return
    stop, turns = chat.stop, chat.turns()
    try:
        settings = Settings(*values)
        while not backend.ready.wait(1) and not stop.is_set():
            yield render.transcript(chat)
        if stop.is_set():
            return
        drawn = 0.0
        for progress in backend.write(exchange.persona, turns, settings, stop):
            exchange.reply = progress.text
            if time.monotonic() - drawn >= frame_seconds():
                yield render.transcript(chat)
                drawn = time.monotonic()
        chat.tokens_per_second = progress.tokens / progress.seconds if progress.seconds else None
    except UserError as error:
        gr.Warning(str(error))
    finally:  # also when the visitor leaves
        stop.set()
        chat.finish(exchange)


def settle(message: str, chat: Conversation):
    """After a reply: what could not be sent goes back into the message box, in front of what was typed meanwhile."""
    unsent, chat.unsent = chat.unsent, ""
    return [" ".join(filter(None, [unsent, message])), *shown(chat)]
