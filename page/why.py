"""Why this reply: under the visitor's newest reply, the sentences of the persona that it used; nothing where it used none."""

import json
from html import escape

from page import backend
from page.conversation import Conversation
from persona_bot.errors import UserError


def found(chat: Conversation) -> str:
    """Looks for them, after the reply is shown, and draws them."""
    last = chat.exchanges[-1] if chat.exchanges else None
    if last is None or chat.writing or not last.reply or not backend.ready.is_set():
        return ""
    reply = last.reply
    if chat.used is None or chat.used[0] != reply:
        before = chat.turns()[:-1]  # up to what it answers
        try:
            chat.used = reply, tuple(backend.used(last.persona, before, reply))
        except UserError as error:
            return _elsewhere(str(error)) if len(chat.exchanges) == 1 else ""
    return drawn(chat)


def drawn(chat: Conversation) -> str:
    """What was found, while that reply is the newest and is shown."""
    if chat.writing or not chat.exchanges or not chat.used:
        return ""
    reply, used = chat.used
    if reply != chat.exchanges[-1].reply or not used:
        return ""
    rows = "".join(f"<li>{escape(sentence)}</li>" for sentence in used)
    return (
        f"<details class='why'><summary>Why this reply</summary><ul>{rows}</ul>"
        f'<data hidden value="{escape(json.dumps(used))}"></data></details>'
    )


def _elsewhere(sentence: str) -> str:
    return f'<p class="why">{escape(sentence)}</p>'
