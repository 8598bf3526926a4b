"""Reads facts: what a persona says of itself, and what it is asked about that. The format is described at the top of each file."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent


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
        return slot_names(texts)


def parts(file: str) -> Iterator[tuple[str, list[str]]]:
    """(sign, its wordings) for every line of a template file; for `[name]` the sign is "[" and the name the only one."""
    for line in (HERE / file).read_text(encoding="utf-8").splitlines():
        if line[:1] == "[":
            yield "[", [line.strip("[] ")]
        elif line.strip() and line[:1] != "#":
            yield line[0], [part.strip() for part in line[2:].split(" | ")]


def read_facts(files: Sequence[str]) -> list[Fact]:
    """The facts of the files."""
    facts: list[Fact] = []
    topic = ""
    names = {"~": "doing", "+": "more", ":": "why"}
    for sign, texts in chain.from_iterable(map(parts, files)):
        if sign == "$":
            continue
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


def read_slots(file: str) -> dict[str, list[str]]:
    """What each slot of a template file may hold."""
    told = (texts[0].partition(":") for sign, texts in parts(file) if sign == "$")
    return {name: [value.strip() for value in values.split(",")] for name, _, values in told}


def slot_names(texts: Sequence[str]) -> list[str]:
    """The slots that the texts use, each once; {other_x} counts as x."""
    names = (name for text in texts for name in re.findall(r"{(\w+)}", text))
    return sorted({name.removeprefix("other_") for name in names})
