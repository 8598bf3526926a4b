"""The HTML of two personas that talk to each other: the choice of the second one, and who is talking."""

from html import escape

from page import faces
from page.conversation import MAX_LINES, Conversation
from page.names import TALK
from page.render import event
from page.typed import NAMELESS
from persona_bot.persona import Persona


def menu(presets: dict[str, Persona]) -> str:
    """The choice of a second persona; the script adds those that somebody wrote."""
    rows = [("random", "🎲", "Somebody random"), *((s, p.face, p.name) for s, p in presets.items())]
    buttons = "".join(
        f"<li><button {event(TALK, who=slug)}>{faces.face(face)}<span>{escape(name)}</span></button></li>"
        for slug, face, name in rows
    )
    return (
        '<button type="button" class="quiet" popovertarget="duet">Let them talk</button>'
        '<div id="duet" popover role="dialog" aria-label="Let them talk"><h3>Who talks to them?</h3>'
        f"<p>The two go on by themselves, up to {MAX_LINES} lines. Write a message to step in.</p>"
        f"<ul>{buttons}</ul></div>"
    )


def state(chat: Conversation) -> str:
    """Who is talking; with `data-next` the page asks for the next line. A screen reader hears what changes in an element that was there."""
    if not chat.partner:
        return '<p class="duet" role="status"></p>'
    names = " and ".join(escape(p.called or NAMELESS.name) for p in (chat.partner, chat.persona))
    if not chat.lines_left and not chat.writing:
        return f'<p class="duet" role="status">{names} have talked. Write a message, or let them go on.</p>'
    goes_on = "" if chat.writing else f' data-next="{chat.lines_left}"'
    return f'<p class="duet" role="status" data-talking{goes_on}>{names} are talking.</p>'
