"""Reads what made small talk is made of: facts, messages and voices. The formats are described at the top of each file."""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from train.data import questions

HERE = Path(__file__).parent
# each topic with the same questions for opposite sentences
CONTRASTS = tuple(
    f"contrasts/{name}.txt" for name in ("body", "family", "home", "odd", "taste", "work")
)
FACTS = ("everyday_facts.txt", "yes_no_facts.txt", "relation_facts.txt", *CONTRASTS)
# letters of everyday_voices.txt
WHOLE = {"h": "greeting", "b": "bye", "t": "thanks", "l": "lol", "i": "insult"}
ASKS_BACK = [
    "what about you?",
    "and you?",
    "how about you?",
    "do you like that too?",
    "can you imagine that?",
    "what brings you here?",
    "what do you do all day?",
    "where are you from?",
    "have you ever tried it?",
    "what would you do?",
    "do you know somebody like that?",
    "is it like that for you?",
    "who are you?",
    "what is your name?",
    "do you want to hear more?",
    "is that strange?",
    "what do you think?",
    "would you like that?",
    "are you from around here?",
    "how was your day?",
]


class Block(NamedTuple):
    """Questions that the same answers fit."""

    questions: list[str]
    answers: list[str]


class Fact(NamedTuple):
    """What a persona says of itself, and what it can tell about it; all still with {slots}."""

    topic: str
    lines: list[str]
    blocks: tuple[Block, ...] = ()
    who: str = ""
    where: str = ""
    doing: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def one(self) -> str:
        """`the baker` -> `a baker`; others stay."""
        noun = self.who.removeprefix("the ")
        if noun == self.who or noun.startswith(("one ", "visitor")):
            return self.who
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"

    @property
    def slots(self) -> list[str]:
        """The slots that its texts use, each once."""
        texts = [*self.lines, *self.doing, *self.more, *self.why]
        texts += [text for block in self.blocks for part in block for text in part]
        return questions.slot_names(texts)

    @classmethod
    def of_questions(cls, fact: questions.Fact) -> "Fact":
        """A fact of question_templates.txt."""
        return cls(fact.topic, fact.lines, tuple(Block(*block) for block in fact.blocks))


class Message(NamedTuple):
    """A kind of message: how it is typed, and the patterns of its replies."""

    name: str
    texts: list[str]
    replies: list[str]


class Voice(NamedTuple):
    """How a persona speaks."""

    name: str
    lines: list[str]
    before: list[str]
    after: list[str]
    words: dict[str, str]
    whole: dict[str, list[str]]

    def swap(self, text: str) -> str:
        """The text with this voice's own words; `.` stands for the end of a sentence."""
        for word, own in self.words.items():
            edge = r"\.(?=\s|$)" if word == "." else rf"\b{re.escape(word)}\b(?!')"
            text = re.sub(edge, own, text)
        return text

    def wrap(self, draw: random.Random, text: str) -> str:
        """The text as this voice says it: own words, and mostly something before or after."""
        text = self.swap(text)
        where = draw.random()
        if self.before and where < 0.55:
            text = f"{draw.choice(self.before)} {text}"
        if self.after and (0.45 < where < 0.9):
            text = f"{text} {draw.choice(self.after)}"
        return text


def parts(file: str) -> Iterator[tuple[str, list[str]]]:
    """(sign, its wordings) for every line of a template file; for `[name]` the sign is "[" and the name the only one."""
    for line in (HERE / file).read_text(encoding="utf-8").splitlines():
        if line[:1] == "[":
            yield "[", [line.strip("[] ")]
        elif line.strip() and line[:1] != "#":
            yield line[0], [part.strip() for part in line[2:].split(" | ")]


def read_facts(files: Sequence[str] = FACTS) -> list[Fact]:
    """The facts of the files."""
    facts: list[Fact] = []
    topic = ""
    names = {"~": "doing", "+": "more", ":": "why"}
    for sign, texts in chain.from_iterable(map(parts, files)):
        if sign == "[":
            topic = texts[0]
        elif sign == "=":
            facts.append(Fact(topic, texts))
        elif sign == "?":
            facts[-1] = facts[-1]._replace(blocks=(*facts[-1].blocks, Block(texts, [])))
        elif sign == "!":
            facts[-1].blocks[-1].answers.extend(texts)
        else:
            told: dict[str, Any] = {names[sign]: tuple(texts)} if sign in names else {}
            told = told or {"who" if sign == "&" else "where": texts[0]}
            facts[-1] = facts[-1]._replace(**told)
    return facts


def read_messages() -> dict[str, Message]:
    messages: dict[str, Message] = {}
    name = ""
    for sign, texts in parts("everyday_messages.txt"):
        if sign == "[":
            name = texts[0]
            messages[name] = Message(name, [], [])
        elif sign == "<":
            messages[name].texts.extend(texts)
        else:
            messages[name].replies.extend(texts)
    return messages


def read_voices() -> list[Voice]:
    voices: list[Voice] = []
    for sign, texts in parts("everyday_voices.txt"):
        if sign == "[":
            voices.append(Voice(texts[0], [], [], [], {}, {}))
            continue
        voice = voices[-1]
        if sign == "/":
            voice.words.update(text.partition(": ")[::2] for text in texts)
        elif sign in WHOLE:
            voice.whole[WHOLE[sign]] = texts
        else:
            {"=": voice.lines, "<": voice.before, ">": voice.after}[sign].extend(texts)
    return voices
