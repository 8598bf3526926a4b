"""Reads what made small talk is made of beside facts (templates.py): messages and voices. The formats are described at the top of each file."""

import random
import re
from typing import NamedTuple

from train.data.templates import parts

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
