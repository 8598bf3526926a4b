"""What was said in a conversation, however it is written -> who said what, and utterances of Persona-Chat's layout."""

import re
from collections.abc import Iterable

from persona_bot.layouts import SILENCE

SYSTEM = {"system", "developer"}  # OpenAI's two names
PARTNER = {"user", "human", "prompter", "partner"}
BOT = {"assistant", "gpt", "bot", "chatgpt", "model", "chatbot", "persona"}
_ROLES = "|".join(sorted(SYSTEM | PARTNER | BOT))
_ROLE_BEFORE = re.compile(rf"^(?=[ \t]*(?:{_ROLES})[ \t]*:)", re.IGNORECASE | re.MULTILINE)
_SPEAKER = re.compile(r"\s*([^\W\d][\w ]{0,19}?)[ \t]*:")


def turns_of(said: object) -> object:
    """Turns with a role of plain texts, or of one text's lines; anything else as it is.

    Where a name and a colon stand before each text, that is its role; else partner and persona take turns.
    """
    if isinstance(said, str):
        parts = _ROLE_BEFORE.split(said) if _ROLE_BEFORE.match(said.lstrip()) else said.split("\n")
        said = [part for part in parts if part.strip()]
    if not isinstance(said, list) or not all(isinstance(text, str) for text in said):
        return said
    named = [_SPEAKER.match(text) for text in said]
    return [
        {"role": name[1], "content": text[name.end() :].strip()}
        if name and all(named)
        else {"role": ("user", "assistant")[number % 2], "content": text.strip()}
        for number, (name, text) in enumerate(zip(named, said, strict=True))
    ]


def utterances_of(spoken: Iterable[tuple[bool, str]]) -> list[dict]:
    """(whether the bot speaks, text) pairs in order -> an utterance for each reply; turns of one speaker running are kept."""
    turns: list[str] = []  # partner, bot, partner, ..
    utterances = []
    for by_bot, text in spoken:
        if by_bot:
            turns += [] if len(turns) % 2 else [SILENCE]
            utterances.append({"history": list(turns), "candidates": [text]})
            turns.append(text)
        elif len(turns) % 2:
            turns[-1] += f"\n{text}"
        else:
            turns.append(text)
    return utterances


def role_and_text(turn: object) -> tuple[str | None, str | None]:
    """A turn's role in lower case and what was said, by any of their names; None for what is not there or no text."""
    if not isinstance(turn, dict):
        return None, None
    turn = {str(name).lower(): value for name, value in turn.items()}
    role = next((turn[key] for key in ("role", "from", "speaker") if key in turn), None)
    text = next((turn[key] for key in ("content", "value", "text") if key in turn), None)
    if isinstance(text, list) and all(
        isinstance(p, dict) and p.get("type") == "text" for p in text
    ):
        text = "".join(str(part.get("text", "")) for part in text)
    return (
        role.lower() if isinstance(role, str) else None,
        text if isinstance(text, str) else None,
    )
