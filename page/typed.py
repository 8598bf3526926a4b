"""What a visitor types, checked: a message, and the persona that its sentences belong to."""

from persona_bot.errors import UserError
from persona_bot.persona import MAX_MESSAGE_CHARS, MAX_NAME_CHARS, Persona, parse_persona

MAX_FACE_CHARS = 16
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


def renamed(persona: Persona, name: object = None, face: object = None) -> Persona:
    """The persona with another name or face, as far as these are texts."""
    if isinstance(name, str):
        plain = parse_persona("", name[:MAX_NAME_CHARS]).name
        persona = persona._replace(name=plain or NAMELESS.name)
    if isinstance(face, str):
        persona = persona._replace(face=face[:MAX_FACE_CHARS])
    return persona
