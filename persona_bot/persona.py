"""A persona: what a person writes or pastes, read tolerantly into `Persona(name, sentences, face, ..)`; the presets.

A preset is a plain file `persona_presets/<slug>.txt`, and so is any persona that is kept in a file:

    # 🌱 Willow, environmentalist
    # greeting: hi! i just came in from the garden.
    # starter: Where do you work?
    i am willow and i work for greenpeace.
"""

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from persona_bot.errors import UserError
from persona_bot.pools import draw
from persona_bot.sentences import clean, sentences
from persona_bot.sheets import plain_lines

MAX_SENTENCES = 12
MAX_SENTENCE_CHARS = 200
MAX_TEXT_CHARS = 10_000  # of text that is looked at; the limits above fit in a third of it
# of one thing that a partner says; more is refused before it is tokenized
MAX_MESSAGE_CHARS = 1_000
MAX_NAME_CHARS = 40
MAX_FACE_CHARS = 16
MAX_GREETING_CHARS = 300
MAX_STARTERS = 6
MAX_STARTER_CHARS = 100
PRESETS = Path(__file__).parent.parent / "persona_presets"
FIRST_PRESETS = ("environmentalist", "soldier")


class Persona(NamedTuple):
    """Who the bot is."""

    name: str  # what the page calls it; may be empty
    sentences: tuple[str, ...]  # at most MAX_SENTENCES, each one line of at most MAX_SENTENCE_CHARS
    face: str = ""  # one symbol, mostly an emoji, or nothing
    greeting: str = ""  # what it says first
    starters: tuple[str, ...] = ()  # what a visitor may begin with

    @property
    def called(self) -> str:
        """`Willow` of `Willow, environmentalist`."""
        return self.name.split(",")[0].strip()


def parse_persona(text: str, name: str = "") -> Persona:
    """The persona in `text`, plain or a character sheet (sheets.py): list marks and blank lines are dropped, lines split.

    A line `# ...` is no sentence: the first gives face and name (unless `name` does), `# greeting: ..` and `# starter: ..`
    what their names say, others are remarks. An empty text is a persona without sentences. Raises UserError, naming the
    line, for text over the limits.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise UserError(
            f"The persona text has over {MAX_TEXT_CHARS:,} characters; shorten it to at most "
            f"{MAX_SENTENCES} sentences of {MAX_SENTENCE_CHARS} characters each."
        )
    face, greeting = "", ""
    starters: list[str] = []
    found: list[str] = []
    for number, line in plain_lines(text):
        line = clean(line)
        head = _HEAD.fullmatch(line)
        if head and head[1].lower() == "greeting":
            greeting = head[2][:MAX_GREETING_CHARS]
        elif head:
            starters.append(head[2][:MAX_STARTER_CHARS])
        elif _TITLE.match(line):
            if not (found or face or name):
                face, name = _read_title(line)
        else:
            for sentence in sentences(line):
                _check(sentence, number, len(found))
                found.append(sentence)
    name = clean(name[:MAX_NAME_CHARS])
    return Persona(name, tuple(found), face, greeting, tuple(starters[:MAX_STARTERS]))


def persona_text(persona: Persona) -> str:
    """The sentences as the text box shows them, one a line; `parse_persona` reads them back."""
    return "\n".join(persona.sentences)


def persona_file(persona: Persona) -> str:
    """All of a persona as a preset's file holds it; `parse_persona` reads it back."""
    title = f"{persona.face} {persona.name}".strip()
    head = [title, *([f"greeting: {persona.greeting}"] if persona.greeting else [])]
    head += [f"starter: {starter}" for starter in persona.starters]
    return "\n".join([f"# {line}" for line in head if line] + list(persona.sentences))


def face_of(text: str) -> str:
    """The first symbol of a text, whole where it is an emoji of several characters; nothing of one with letters or digits."""
    found = _SYMBOL.match(text[:MAX_FACE_CHARS])
    return found[0] if found and not any(c.isalnum() for c in text) else ""


def hint(persona: Persona) -> str | None:
    """What to say to who writes "You are .." or "Anna is ..": the model learnt sentences that begin with "i"."""
    for number, sentence in enumerate(persona.sentences):
        about = _ABOUT_ANOTHER.match(sentence)
        pronoun = about and (about["pronoun"] or "").lower()
        named = persona.called and re.match(
            rf"{re.escape(persona.called)} (?:is|was|has|\w+s)\b", sentence, re.IGNORECASE
        )
        # "she is slow" may be about the horse of the sentence before
        if named or (about and (number == 0 or pronoun in ("", "you"))):
            words = " ".join(sentence.split()[:2])
            return f'Write it as they would say it, like "i am ..", instead of "{words} ..".'
    return None


def load_presets(folder: Path | str = PRESETS) -> dict[str, Persona]:
    """Every `<slug>.txt` of the folder by its slug; a line on stderr names each that cannot be used. Raises UserError if none can."""
    files = sorted(Path(folder).glob("[!.]*.txt"), key=lambda file: (_place(file.stem), file.stem))
    presets = {}
    for file in files:
        try:
            presets[file.stem] = read_persona(file)
        except UserError as error:  # one slip must not cost the whole page
            _warn_once(f"This preset is left out. {error}")
    if not presets:
        raise UserError(
            f"The folder {folder} holds no persona files that can be used; put one there, named like soldier.txt, a sentence a line."
        )
    return presets


@cache
def _warn_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def read_persona(file: Path | str) -> Persona:
    """The persona in a file, called after the file when it has no title line; raises UserError naming the file."""
    file = Path(file)
    try:
        # -sig: some editors begin a file with a mark
        with file.open(encoding="utf-8-sig") as stream:
            persona = parse_persona(stream.read(MAX_TEXT_CHARS + 1))
    except OSError as error:
        raise UserError(
            f"The persona file {file} cannot be read: {error.strerror}; check its name and permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"The persona file {file} is not UTF-8 text; save it as UTF-8.") from error
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    if not persona.sentences:
        raise UserError(
            f"The persona file {file} holds no sentence; write one a line, like: i live by the sea."
        )
    return (
        persona
        if persona.name
        else persona._replace(name=file.stem.replace("_", " ").replace("-", " ").capitalize())
    )


def find_persona(name: str, seed: int) -> Persona:
    """What a person names: a preset's slug, `random` (drawn with `seed`), or a file; raises UserError listing the choices."""
    presets = load_presets()
    if name == "random":
        return random_persona(seed)
    if name in presets:
        return presets[name]
    path = os.path.expanduser(name)
    if os.path.exists(path) and not os.path.isdir(path):  # a pipe is one, too
        return read_persona(path)
    raise UserError(
        f"There is no persona {name!r}; name a file, random, or one of {', '.join(presets)}."
    )


def random_persona(seed: int) -> Persona:
    """A persona drawn from the pools (pools.py); the same seed gives the same one on every machine."""
    return Persona(*draw(seed))


_ABOUT_ANOTHER = re.compile(
    r"(?P<pronoun>(?i:you|he|she|they))(?:['’](?:re|s|ve)| (?:are|is|was|were|have|has|loves?|likes?|lives?|works?))\b"
    r"|(?!(?:I|My|This|That|It|There|What|Life|Here|Home|Everything|Nothing|One)\b)[A-Z]\w+ "
    r"(?:(?:is|was) (?:an?|the|\d+|from)\b|(?:has|lives|works|loves|likes|hates) )"
)
_TITLE = re.compile(r"#(?:\s|$)")
_DECORATION = "=-~* "
_SYMBOL = re.compile(  # a flag is two letters; an emoji may go on with joined ones, skins, tags and marks of its kind
    r"(?:[\U0001f1e6-\U0001f1ff]{2}|\S)(?:\u200d\S|[\ufe00-\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f])*"
)
_HEAD = re.compile(r"#\s+(greeting|starter):\s*(.+)", re.IGNORECASE)


def _check(sentence: str, line: int, before: int) -> None:
    if len(sentence) > MAX_SENTENCE_CHARS:
        raise UserError(
            f"Line {line} has a sentence of {len(sentence)} characters and at most {MAX_SENTENCE_CHARS} fit; shorten or split it."
        )
    if before == MAX_SENTENCES:
        raise UserError(
            f"Line {line} holds sentence {MAX_SENTENCES + 1} and a persona has at most {MAX_SENTENCES}; remove it or others."
        )


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


def _read_title(line: str) -> tuple[str, str]:
    """`# 🌱 Environmentalist` -> ("🌱", "Environmentalist"); the face may be missing."""
    title = line.lstrip("# ").strip(_DECORATION)
    first, _, rest = title.partition(" ")
    face = face_of(first)
    return face, (rest.strip(_DECORATION) if face else title)[:MAX_NAME_CHARS]


def _place(slug: str) -> int:
    if slug.startswith("0-"):  # somebody's own, as train.publish --persona puts it first
        return -1
    return FIRST_PRESETS.index(slug) if slug in FIRST_PRESETS else len(FIRST_PRESETS)
