"""A persona: free text, one sentence a line, read tolerantly into `Persona(name, sentences, face)`; presets; a random one.

A preset is a plain file `persona_presets/<slug>.txt`: first a title line `# <face> <title>`, then one sentence a line. A
random persona takes one sentence from each pool in `persona_presets/pools/`; a line there may end with topics (`#night`),
and no two sentences of one persona share a topic, so that nobody looks at stars for a living and goes to bed at nine. Some 267
million combinations pass, before name and age.
"""

import random
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import NamedTuple

from persona_bot.errors import UserError

MAX_SENTENCES = 12
MAX_SENTENCE_CHARS = 200
MAX_TEXT_CHARS = 10_000  # of text that is looked at; the limits above fit in a third of it
# of one thing that a partner says; more is refused before it is tokenized
MAX_MESSAGE_CHARS = 1_000
MAX_NAME_CHARS = 40
PRESETS = Path(__file__).parent.parent / "persona_presets"
FIRST_PRESETS = ("environmentalist", "soldier")
# in the order in which a persona tells them
POOLS = ("jobs", "homes", "hobbies", "likes", "dislikes", "quirks")


class Persona(NamedTuple):
    """Who the bot is."""

    name: str  # what the page calls it; may be empty
    sentences: tuple[str, ...]  # at most MAX_SENTENCES, each one line of at most MAX_SENTENCE_CHARS
    face: str = ""  # an emoji, or nothing


def parse_persona(text: str, name: str = "") -> Persona:
    """The persona in `text`: bullets, numbering and blank lines are dropped, and several sentences in a line are split.

    A line `# ...` is no sentence: the first gives face and name (unless `name` does), others are remarks. An empty text
    is a persona without sentences. Raises UserError, naming the line, for text over the limits.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise UserError(
            f"The persona text has over {MAX_TEXT_CHARS:,} characters; shorten it to at most "
            f"{MAX_SENTENCES} sentences of {MAX_SENTENCE_CHARS} characters each."
        )
    face, sentences = "", []
    for number, line in enumerate(text.splitlines(), start=1):
        line = _clean(line)
        if _TITLE.match(line):
            if not (sentences or face or name):
                face, name = _read_title(line)
            continue
        for sentence in _split(line):
            _check(sentence, number, len(sentences))
            sentences.append(sentence)
    return Persona(_clean(name[:MAX_NAME_CHARS]), tuple(sentences), face)


def persona_text(persona: Persona) -> str:
    """The sentences as the text box shows them, one a line; `parse_persona` reads them back."""
    return "\n".join(persona.sentences)


def load_presets(folder: Path | str = PRESETS) -> dict[str, Persona]:
    """Every `<slug>.txt` of the folder by its slug; raises UserError naming a file that cannot be used."""
    files = sorted(Path(folder).glob("*.txt"), key=lambda file: (_place(file.stem), file.stem))
    if not files:
        raise UserError(
            f"The folder {folder} holds no persona files; put one there, named like soldier.txt, a sentence a line."
        )
    return {file.stem: read_persona(file) for file in files}


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
    if Path(name).is_file():
        return read_persona(name)
    raise UserError(
        f"There is no persona {name!r}; name a file, random, or one of {', '.join(presets)}."
    )


def random_persona(seed: int) -> Persona:
    """A persona drawn from the pools; the same seed gives the same one on every machine and Python version."""
    draw = random.Random(seed)
    first_name = _draw_line(draw, _pool("names"), set())[0]
    age = 25 + draw.randrange(35)
    sentences, topics, title = [f"my name is {first_name.lower()} and i am {age}."], set(), ""
    for pool in POOLS:
        line, line_topics = _draw_line(draw, _pool(pool), topics)
        if pool == "jobs":  # "🍞 Baker: i bake bread ..."
            title, line = line.split(": ", 1)
        sentences.append(line)
        topics |= line_topics
    face, job = title.split(" ", 1)
    return Persona(f"{first_name}, {job.lower()}", tuple(sentences), face)


def _draw_line(
    draw: random.Random, lines: list[tuple[str, frozenset]], topics: set
) -> tuple[str, frozenset]:
    allowed = [line for line in lines if not line[1] & topics]
    return allowed[draw.randrange(len(allowed))]


@cache
def _pool(name: str) -> list[tuple[str, frozenset]]:
    """Lines of a pool with their topics: `i paint the sea. #sea` -> ("i paint the sea.", {"#sea"})."""
    lines = (PRESETS / "pools" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line.strip()]
    return [
        (" ".join(w for w in ws if w[0] != "#"), frozenset(w for w in ws if w[0] == "#"))
        for ws in words
    ]


_EMOJI_JOINER = re.compile("(?<=[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d")
_TITLE = re.compile(r"#+(?:\s|$)")
_MARKER = re.compile(r"^(?:[-*+#–—·]+(?:\s+|$)|[•‣◦▪]\s*|\(?\d{1,2}[.)](?:\s+|$))+")
_SENTENCE_END = re.compile(r"""(?:(?<=[.!?…])|(?<=[.!?…]["'”’)\]]))\s+""")
_NO_END = re.compile(
    r"\(?(?:mr|mrs|ms|dr|st|prof|vs|no|e\.g|i\.e|[^\W\d_](?:\.[^\W\d_])*|.*\.\.)\.", re.IGNORECASE
)


def _clean(line: str) -> str:
    """The line without control, bidi and zero-width characters and lone surrogates, its white space single spaces."""
    spaced = " ".join(line.split())
    joiners = {match.start() for match in _EMOJI_JOINER.finditer(spaced)}
    kept = (
        c
        for k, c in enumerate(spaced)
        if k in joiners or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )
    return " ".join("".join(kept).split())


def _split(line: str) -> list[str]:
    """The sentences of a clean line, without list markers; `dr. who` and `well... yes` stay whole."""
    sentences = [""]
    for piece in _SENTENCE_END.split(_MARKER.sub("", line)):
        if _NO_END.fullmatch(sentences[-1].rpartition(" ")[2]):
            sentences[-1] += f" {piece}"
        else:
            sentences.append(piece)
    unmarked = (_MARKER.sub("", sentence) for sentence in sentences)
    return [sentence for sentence in unmarked if sentence]


def _check(sentence: str, line: int, before: int) -> None:
    if len(sentence) > MAX_SENTENCE_CHARS:
        raise UserError(
            f"Line {line} has a sentence of {len(sentence)} characters and at most {MAX_SENTENCE_CHARS} fit; shorten or split it."
        )
    if before == MAX_SENTENCES:
        raise UserError(
            f"Line {line} holds sentence {MAX_SENTENCES + 1} and a persona has at most {MAX_SENTENCES}; remove it or others."
        )


def _read_title(line: str) -> tuple[str, str]:
    """`# 🌱 Environmentalist` -> ("🌱", "Environmentalist"); the face may be missing."""
    title = line.lstrip("# ")
    face, _, name = title.partition(" ")
    return (
        ("", title[:MAX_NAME_CHARS])
        if any(c.isalnum() for c in face)
        else (face[:16], name[:MAX_NAME_CHARS])
    )


def _place(slug: str) -> int:
    return FIRST_PRESETS.index(slug) if slug in FIRST_PRESETS else len(FIRST_PRESETS)
