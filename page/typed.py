"""What a visitor types, checked: a message, and the persona that its sentences belong to."""

from persona_bot.errors import UserError
from persona_bot.persona import MAX_MESSAGE_CHARS, Persona

NAMELESS = Persona("Your persona", (), "🎭")  # name and face of one that has none


def check_message(message: object) -> str:
    """The message without outer white space and broken characters; raises UserError when it is empty or too long."""
    if not isinstance(message, str):
        raise UserError("A message must be text.")
    if len(message) > MAX_MESSAGE_CHARS:
        raise UserError(
            f"The message has {len(message):,} characters and at most {MAX_MESSAGE_CHARS:,} fit; shorten it."
        )
    if not message.strip():
        raise UserError("Write a message first.")
    # half a surrogate pair could not be sent back to the browser
    return message.strip().encode("utf-8", "replace").decode()


def recognise(persona: Persona, before: Persona, presets: dict[str, Persona]) -> Persona:
    """Name, face and greeting for sentences from the text box: a preset's, else those of the persona they were edited from."""
    if persona.sentences == before.sentences:
        return before._replace(name=persona.name, face=persona.face) if persona.name else before
    for preset in presets.values():
        if preset.sentences == persona.sentences:
            return preset
    if persona.name:
        return persona
    known = before if set(before.sentences) & set(persona.sentences) else NAMELESS
    return known._replace(sentences=persona.sentences)
