"""Whose sentences a visitor typed: a preset's, the former persona's, or somebody new."""

from collections.abc import Iterable

from persona_bot.persona import MAX_NAME_CHARS, Persona, face_of, parse_persona

NAMELESS = Persona("Your persona", (), "🎭")  # name and face of one that has none
BY_HAND = ("name", "face")  # what is chosen beside the text


def recognise(
    persona: Persona, before: Persona, presets: dict[str, Persona], by_hand: Iterable[str] = ()
) -> Persona:
    """Name, face and greeting for sentences from the text box: a preset's, else those of the persona they were edited from.

    What was chosen `by_hand` stays.
    """
    found = _whose(persona, before, presets)
    return found._replace(**{part: getattr(before, part) for part in by_hand})


def chosen(persona: Persona, before: Persona) -> set[str]:
    """What of BY_HAND is another than before."""
    return {part for part in BY_HAND if getattr(persona, part) != getattr(before, part)}


def _whose(persona: Persona, before: Persona, presets: dict[str, Persona]) -> Persona:
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
        persona = persona._replace(face=face_of(face))
    return persona
