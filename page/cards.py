"""Character cards, V2 and V3: the JSON that other programs keep a character in, to a persona and back.

    {"spec": "chara_card_v2", "spec_version": "2.0", "data": {"name": "Anna", "description": "{{char}} is a baker.",
     "personality": "kind", "first_mes": "hi {{user}}!", "extensions": {}, ..}}

The specifications: malfoyslastname/character-card-spec-v2 and kwaroran/character-card-spec-v3. A PNG card has this JSON in
a text chunk, which the browser takes out and puts in (static/js); no picture of a stranger comes here.
"""

import json

from persona_bot.errors import UserError
from persona_bot.persona import (
    MAX_GREETING_CHARS,
    MAX_NAME_CHARS,
    MAX_SENTENCE_CHARS,
    MAX_SENTENCES,
    MAX_STARTER_CHARS,
    MAX_STARTERS,
    Persona,
    face_of,
)
from persona_bot.sentences import clean, in_first_person, sentences
from persona_bot.sheets import field, plain_lines, values_of

MAX_CARD_CHARS = 100_000  # above it the browser leaves out what is not read, lorebooks above all
NO_CARD = "This is no character card; open a PNG or JSON card of version 2 or 3."
OURS = "persona_bot"  # our name among a card's extensions
UNUSED = {  # what other programs keep beside, as a visitor calls it
    "scenario": "scenario",
    "mes_example": "example dialogue",
    "system_prompt": "system prompt",
    "alternate_greetings": "other greetings",
    "character_book": "lorebook",
}


def read_card(text: object) -> tuple[Persona, str]:
    """(persona, a sentence on what did not fit, or nothing); raises UserError for what is no card."""
    data = _data(text)
    name = clean(_text(data, "name"))[:MAX_NAME_CHARS].strip()
    ours = data.get("extensions")
    ours = ours.get(OURS) if isinstance(ours, dict) else None
    if isinstance(ours, dict):
        found = [clean(line) for line in _text(data, "description").splitlines() if clean(line)]
    else:
        ours = {}
        found = list(dict.fromkeys(_said(data, name)))
    kept = [sentence for sentence in found if len(sentence) <= MAX_SENTENCE_CHARS][:MAX_SENTENCES]
    greeting = clean(in_first_person(_text(data, "first_mes").replace("*", ""), name))
    persona = Persona(
        clean(_text(ours, "name"))[:MAX_NAME_CHARS] or name,
        tuple(kept),
        face_of(clean(_text(ours, "face"))),
        _cut(greeting),
        _starters(ours.get("starters")),
    )
    if not (persona.sentences or persona.greeting):
        raise UserError("This card says nothing about its character; choose another one.")
    return persona, _note(data, len(kept), len(found), persona.greeting != greeting)


def write_card(persona: Persona, version: int = 2) -> str:
    """The JSON of a card; `read_card` reads the same persona from it."""
    data = {
        "name": persona.called or "Persona",
        "description": "\n".join(persona.sentences),
        "personality": "",
        "scenario": "",
        "first_mes": persona.greeting,
        "mes_example": "",
        "creator_notes": "",
        "system_prompt": "",
        "post_history_instructions": "",
        "alternate_greetings": [],
        "tags": [],
        "creator": "",
        "character_version": "",
        "extensions": {
            OURS: {"name": persona.name, "face": persona.face, "starters": list(persona.starters)}
        },
    }
    if version == 3:
        data["group_only_greetings"] = []
    spec = {"spec": f"chara_card_v{version}", "spec_version": f"{version}.0", "data": data}
    return json.dumps(spec, ensure_ascii=False, indent=1)


def _data(text: object) -> dict:
    """The fields of a card: those of V2 and V3 stand in `data`, those of V1 at the top."""
    if not isinstance(text, str):
        raise UserError(NO_CARD)
    if len(text) > MAX_CARD_CHARS:
        raise UserError(
            f"This card has over {MAX_CARD_CHARS:,} characters; shorten it, its lorebook above all."
        )
    try:
        card = json.loads(text)
    # ValueError: also a number of too many digits; RecursionError: thousands of brackets
    except (ValueError, RecursionError) as error:
        raise UserError(NO_CARD) from error
    data = card.get("data", card) if isinstance(card, dict) else None
    if not isinstance(data, dict) or not any(
        isinstance(data.get(key), str) for key in ("description", "personality", "first_mes")
    ):
        raise UserError(NO_CARD)
    return data


def _text(fields: dict, key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _said(data: dict, name: str) -> list[str]:
    """Name, personality and description as sentences in the first person."""
    lines = list(field("name", [name])) if name else []
    personality = " ".join(_text(data, "personality").split())
    if not personality.endswith((".", "!", "?")) and ":" not in personality:
        lines += field("personality", values_of(personality))
    else:
        lines.append(_text(data, "personality"))
    lines.append(_text(data, "description"))
    known_as = name.split()[0] if len(name.split()) == 1 else name
    return [
        sentence
        for text in lines
        for _, line in plain_lines(text)
        if not line.startswith("# ")
        for sentence in sentences(in_first_person(clean(line), known_as))
    ]


def _starters(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else []
    found = (clean(text)[:MAX_STARTER_CHARS] for text in texts if isinstance(text, str))
    return tuple(text for text in found if text)[:MAX_STARTERS]


def _cut(greeting: str) -> str:
    """As many of its sentences as fit."""
    if len(greeting) <= MAX_GREETING_CHARS:
        return greeting
    kept = ""
    for sentence in sentences(greeting):
        if len(kept) + len(sentence) + 1 > MAX_GREETING_CHARS:
            break
        kept = f"{kept} {sentence}".strip()
    return kept or greeting[: MAX_GREETING_CHARS - 1].rstrip() + "…"


def _note(data: dict, kept: int, found: int, cut: bool) -> str:
    """What of a card is not used, in a sentence."""
    left_out = [f"{found - kept} of {found} sentences"] if found > kept else []
    left_out += ["the end of the greeting"] if cut else []
    left_out += [f"the {word}" for key, word in UNUSED.items() if data.get(key)]
    if not left_out:
        return ""
    return f"Left out of this card: {', '.join(left_out)}."
