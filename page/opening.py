"""What the page opens with: a shared conversation, what the browser kept, a persona from a link, or the first preset."""

import random
from collections.abc import Iterator
from typing import Any

import gradio as gr

from page import backend, browser_store, render, share
from page.chosen import chosen_setting
from page.conversation import Conversation, new_id
from page.events import FIRST, PRESETS, ShownPersona, shown, shown_persona, with_what_was_good
from page.names import SETTINGS
from page.typed import NAMELESS
from persona_bot.errors import UserError
from persona_bot.persona import random_persona


def opened(kept: str, chat: Conversation, request: gr.Request) -> list:
    """A visit begins: with what the browser kept, else with the persona that a link brings, else with the first preset."""
    back = browser_store.kept_from_json(kept)
    text = back.text
    chat.id, chat.before = new_id(), []  # every visit begins with a copy of the same conversation
    if back.problem:
        gr.Info(back.problem, title="")
    if back.link is not None:
        _from_shared(back.link, chat)
        text = None
    elif back.chat:
        chat.take(back.chat)
    elif request.query_params.get("persona", "").strip():
        text = _from_link(request.query_params["persona"], chat)
    if text is not None:
        with_what_was_good(chat, text)
    unsent, chat.unsent = chat.unsent, ""
    draft = " ".join(filter(None, [unsent, back.draft]))
    settings = [kept_setting(name, back.settings) for name in SETTINGS]
    persona = shown_persona(chat.persona, text)
    if chat.persona == FIRST and text is None:  # as the page stands; somebody may be typing already
        persona = ShownPersona(gr.skip(), gr.skip(), gr.skip())
    return [draft or gr.skip(), *persona, *shown(chat), *settings]


def kept_setting(name: str, kept: dict[str, Any]) -> Any:
    """The value that the browser kept of a setting when it is in its range; else it stays as it stands on the page."""
    try:
        return chosen_setting(name, kept[name])
    except (KeyError, UserError):
        # somebody may have moved a slider already; only a number that is left out must be said, else Gradio draws 0
        return None if name == "seed" else gr.skip()


def _from_shared(fragment: str, chat: Conversation) -> None:
    """Takes the conversation that a link holds."""
    try:
        chat.take(share.chat_from_link(fragment))
    except UserError as error:
        gr.Info(str(error), title="")


def _from_link(wanted: str, chat: Conversation) -> str | None:
    """Takes the persona that a link names or holds; returns its text where it is over a limit."""
    slug = wanted.strip().lower()
    if slug in PRESETS or slug == "random":
        chat.persona = PRESETS.get(slug) or random_persona(random.randrange(2**32))
        return None
    try:
        chat.persona = NAMELESS
        chat.rewrite(wanted, PRESETS)
    except UserError as error:
        gr.Info(str(error), title="")
        return wanted
    return None


def model_arrives(chat: Conversation) -> Iterator[list]:
    """Ends when the model is there, or will not come."""
    while not backend.ready.wait(1):
        yield [render.model_line(None, ""), gr.skip()]
    try:
        model = backend.loaded()
    except UserError as error:
        yield [render.no_model_line(str(error)), gr.skip()]
        return
    line = render.model_line(model.name, model.device_label, backend.writes_in_turn())
    yield [line, shown(chat).status]
