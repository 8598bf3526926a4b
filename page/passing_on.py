"""Passing a chat on: the menu, what its buttons give to the browser, and what a visitor's file becomes."""

import json

import gradio as gr

from page import browser_store, cards, export, share
from page.conversation import Conversation
from page.events import shown, shown_persona, toast, with_unsent
from page.names import PACK
from page.render import event
from page.typed import NAMELESS
from persona_bot.errors import UserError
from persona_bot.persona import Persona

MAX_FILE_BYTES = 8 * 2**20  # the browser reads no larger one
SAID = {  # of what was copied
    "link": "Link copied. Whoever opens it reads this chat and can go on from it.",
    "copy": "The chat is copied.",
    "persona": "Link copied. Whoever opens it meets this persona.",
}
KINDS = {  # of a parcel, as the menu names them
    "link": "Copy a link to this chat",
    "copy": "Copy the chat as text",
    "text": "Download as text",
    "json": "Download as a file to open here again",
    "training": "Download as a training dialogue",
    "png": "Download the persona as a card (PNG)",
    "card": "Download the persona as a card (JSON)",
}


def menu() -> str:
    buttons = "".join(
        f"<li><button {event(PACK, kind=kind)}>{label}</button></li>"
        for kind, label in KINDS.items()
    )
    return (
        '<button type="button" class="quiet" popovertarget="share">Share</button>'
        '<div id="share" popover role="dialog" aria-label="Share"><h3>Share</h3>'
        f'<ul>{buttons}<li><button type="button" data-open>Open a chat or a character card…</button></li></ul>'
        "<p>A link holds persona and chat itself; nothing is stored on a server.</p>"
        '<input type="file" hidden accept=".json,.png,application/json,image/png" aria-label="A file"></div>'
    )


def pack(chat: Conversation, kind: object) -> str:
    """What a button of the menu gives to the browser, `{"kind": .., "name": .., "text": ..}`; raises UserError."""
    name = _file_name(chat.persona)
    if kind == "link":
        return _parcel("link", "", share.chat_to_link(chat))
    if kind in ("copy", "text"):
        text = export.chat_as_text(chat)
        return _parcel("copy" if kind == "copy" else "text/plain", f"{name}.txt", text)
    if kind == "json":
        return _parcel("application/json", f"{name}-chat.json", browser_store.chat_to_json(chat))
    if kind == "training":
        text = export.training_dialogue(chat)
        return _parcel("application/json", f"{name}-training.json", text)
    persona = chat.persona if chat.persona.name != NAMELESS.name else chat.persona._replace(name="")
    if kind == "png":
        both = {"chara": cards.write_card(persona, 2), "ccv3": cards.write_card(persona, 3)}
        return _parcel("png", f"{name}.png", json.dumps({"face": persona.face, **both}))
    if kind == "card":
        return _parcel("application/json", f"{name}-card.json", cards.write_card(persona, 3))
    raise UserError("The page asked for something unknown; reload it.")


def _parcel(kind: str, name: str, text: str) -> str:
    return json.dumps({"kind": kind, "name": name, "text": text})


def _file_name(persona: Persona) -> str:
    plain = "".join(c if c.isalnum() else "-" for c in persona.called.lower())
    return "-".join(filter(None, plain.split("-"))) or "persona"


def open_file(chat: Conversation, text: object, size: object, typed: str) -> str:
    """Goes on with the chat or the character that a file holds; returns what did not fit. Raises UserError."""
    if isinstance(size, int) and size > MAX_FILE_BYTES:
        raise UserError(
            f"This file has {size / 2**20:.0f} MB and at most {MAX_FILE_BYTES >> 20} can be opened; "
            "choose a smaller one."
        )
    if _is_chat(text):
        chat.open(browser_store.chat_from_json(text), typed)
        return ""
    persona, note = cards.read_card(text)
    chat.fresh(persona._replace(face=persona.face or NAMELESS.face), typed)
    chat.own = True
    return note


def _is_chat(text: object) -> bool:
    """Whether a file is a chat of this page, whole or not: its own reader says what is wrong with it."""
    try:
        record = browser_store.parse_json(text)
    except UserError:
        return False
    return isinstance(record, dict) and "persona_bot" in record


def packed(chat: Conversation, event: gr.EventData) -> str:
    """An entry of the menu was pressed."""
    with toast():
        return pack(chat, event.kind)


def opened_file(message: str, text: str, chat: Conversation, event: gr.EventData) -> list:
    """A file was chosen; the browser has read it."""
    with toast():
        note = open_file(chat, event.text, event.bytes, text)
    if note:
        gr.Info(note, title="", duration=8)
    return [with_unsent(chat, message), *shown_persona(chat.persona), *shown(chat)]


def copied(kind: str) -> None:
    """The browser has put something of this kind into the clipboard; nothing for what is in none."""
    if kind in SAID:
        gr.Info(SAID[kind], title="", duration=4)
