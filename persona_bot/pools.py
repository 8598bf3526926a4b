"""What a random persona is drawn from: one line of each pool in `persona_presets/pools/`.

A line may end with topics (`i paint the sea. #sea`), and no two lines of one persona share a topic, so that nobody looks at
stars for a living and goes to bed at nine. Some 267 million combinations pass, before name and age.
"""

import random
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "persona_presets" / "pools"
# in the order in which a persona tells them
POOLS = ("jobs", "homes", "hobbies", "likes", "dislikes", "quirks", "families", "voices")
STARTERS = 4

Line = tuple[str, frozenset[str]]  # words and topics


def draw(seed: int) -> tuple[str, tuple[str, ...], str, str, tuple[str, ...]]:
    """(name, sentences, face, greeting, starters); the same seed gives the same ones on every machine and Python version."""
    chance = random.Random(seed)
    first_name = _draw_line(chance, pool("names"), set())[0]
    age = 25 + chance.randrange(35)
    sentences, title = [f"my name is {first_name.lower()} and i am {age}."], ""
    topics: set[str] = set()
    for name in POOLS:
        line, line_topics = _draw_line(chance, pool(name), topics)
        if name == "jobs":  # "🍞 Baker: i bake bread ..."
            title, line = line.split(": ", 1)
        sentences.append(line)
        topics |= line_topics
    face, job = title.split(" ", 1)
    line = _draw_line(chance, pool("greetings"), topics)[0]
    greeting = line.format(name=first_name.lower(), job=job.lower())
    starters = tuple(chance.sample([line for line, _ in pool("starters")], STARTERS))
    return f"{first_name}, {job.lower()}", tuple(sentences), face, greeting, starters


def _draw_line(chance: random.Random, lines: list[Line], topics: set[str]) -> Line:
    allowed = [line for line in lines if not line[1] & topics]
    return allowed[chance.randrange(len(allowed))]


@cache
def pool(name: str) -> list[Line]:
    """Lines of a pool with their topics: `i paint the sea. #sea` -> ("i paint the sea.", {"#sea"})."""
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line.strip()]
    return [
        (" ".join(w for w in ws if w[0] != "#"), frozenset(w for w in ws if w[0] == "#"))
        for ws in words
    ]
