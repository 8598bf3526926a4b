"""The HTML of who can be chosen: the cast's cards, and the faces that a persona can have."""

from html import escape

from page import faces, names
from page.render import event
from page.typed import NAMELESS
from persona_bot.persona import Persona


def cards(presets: dict[str, Persona], persona: Persona) -> str:
    """One button for somebody random, then one a preset; the one that is spoken to is pressed."""
    buttons = [
        _card(
            slug,
            preset.face,
            preset.name,
            preset[:3] == persona[:3],  # one that was edited is among the visitor's own
        )
        for slug, preset in presets.items()
    ]
    return f'<div class="cards" role="group" aria-label="Personas">{"".join(buttons)}</div>'


def random_card() -> str:
    return _card("random", "🎲", "Random, somebody new", False)


def _card(who: str, face: str, name: str, pressed: bool) -> str:
    called, _, title = name.partition(",")
    return (
        f'<button class="card" {event(names.PICK, who=who)} aria-pressed="{str(pressed).lower()}" aria-label="{escape(name)}">'
        f'{faces.face(face)}<span class="name">{escape(called)}<small>{escape(title.strip())}</small></span></button>'
    )


def own_face(persona: Persona) -> str:
    """The button beside the persona's name that opens the choice of faces."""
    return (
        '<button type="button" class="own-face" popovertarget="faces" aria-label="Change the face">'
        f"{faces.face(persona.face or NAMELESS.face)}</button>"
    )


def face_choice() -> str:
    buttons = "".join(
        f'<button {event(names.FACE, face=emoji)} aria-label="{emoji}">{faces.face(emoji)}</button>'
        for emoji in faces.PICTURES
    )
    return f'<div id="faces" popover role="dialog" aria-label="Choose a face"><div>{buttons}</div></div>'
