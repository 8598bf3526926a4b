"""A persona of made small talk: what it knows of itself, and the patterns of replies filled from that.

`train/data/everyday.py` draws the personas and their dialogues.
"""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from train.data.everyday_templates import Voice
from train.data.templates import Fact

CONSTANT = ("who", "one", "where", "name", "pet", "animal")  # slots that may be said again
# slot: the topic of its fact, and the name of the value there
NAMED = {"name": ("name", "name"), "pet": ("pet", "petname"), "animal": ("pet", "animal")}
ABSENT = {"nameless": "name", "ageless": "age", "hobbyless": "hobby"}
# what must be known of the sentence last spoken of
FOLLOW_UPS = {"why": "why", "more": "more", "really": "more", "lol": "more", "ok": "more"}
FOLLOW_UPS |= {"doubt": "lines", "join": "doing", "itsname": "lines"}
KIN = re.compile(
    r"\b(wife|husband|married|single|divorced|marriage|partner|kids?|child|children|daughter|sons?|mother|father|dad"
    r"|brothers?|sisters?|twins?|parents|grandmother|grandson|parent|boys)\b"
)
UNTOLD = {  # asked about what the persona does not speak of
    "petless": re.compile(
        r"\b(pets?|dogs?|cats?|pupp(y|ies)|kittens?|animals?|horses?|birds?|fish|rabbits?|hamsters?|parrots?|snakes?)\b"
    ),
    "kidless": re.compile(
        r"\b(kids?|child|children|daughters?|sons?|twins?|mom|mother|father|dad|parent|baby|babies|boys?|girls?|pregnant)\b"
    ),
    "spouseless": re.compile(
        r"\b(wife|husband|married|single|divorced?|widow|marriage|partner|girlfriend|boyfriend|ex|dating|spouse|engaged|love)\b"
    ),
}


class Known(NamedTuple):
    """A fact of one persona: its sentence, and the fact's texts with the slots filled."""

    fact: Fact
    line: str
    values: dict[str, str]

    def fill(self, text: str) -> str:
        return text.format(**self.values)


class Speaker:
    """A persona and what it can say; keeps what it spoke of last, so that "why?" finds its reason."""

    def __init__(self, draw: random.Random, known: list[Known], voice: Voice | None):
        self.draw, self.known, self.voice = draw, known, voice
        self.core = next((k for k in known if k.fact.who), None)
        self.last: Known | None = None
        self.said: set[str | tuple[str, str]] = set()  # texts; (line, question) of a fact
        self.used: set[str] = set()  # what the last pattern was filled with

    @property
    def topics(self) -> set[str]:
        return {k.fact.topic for k in self.known}

    @property
    def kin(self) -> list[Known]:
        return [k for k in self.known if KIN.search(k.line)]

    def can(self, message: str) -> bool:
        """Whether the persona has an answer to this kind of message now."""
        if message == "family":
            return not self.kin
        if message == "kin":
            return bool(self.kin)
        if message in ABSENT:
            return ABSENT[message] not in self.topics
        if message in UNTOLD:
            return not any(UNTOLD[message].search(k.line) for k in self.known)
        if message == "itsname":
            return bool(
                self.last and self.last.fact.topic == "pet" and "petname" in self.last.values
            )
        if message in ("work", "likework", "notjob", "isjob"):
            return bool(self.core and self.core.fact.where)
        if message == "human":
            return "being" not in self.topics
        if message in FOLLOW_UPS:
            return bool(self.last and getattr(self.last.fact, FOLLOW_UPS[message]))
        return True

    def render(self, pattern: str) -> str | None:
        """The pattern with its slots filled from the persona; None where it has nothing for one."""
        spoken_of = self.last or self.core
        values: dict[str, str] = {}
        talked: list[Known] = []
        for slot in re.findall(r"{(\w+)}", pattern):
            known, texts = self._slot(slot, spoken_of, talked)
            filled = [text for text in map(known.fill, texts) if text] if known else []
            filled = [t for t in filled if t not in self.said and t not in values.values()]
            if not (known and filled):
                return None
            values[slot] = self.draw.choice(filled)
            talked.append(known)
        text = pattern.format(**values)
        if "because because" in text:
            return None
        self.last = talked[-1] if talked else self.last
        self.used = {v for slot, v in values.items() if slot not in CONSTANT}
        return text

    def _slot(
        self, slot: str, spoken_of: Known | None, talked: list[Known]
    ) -> tuple[Known | None, Sequence[str]]:
        known: Known | None
        lines = [k for k in self.known if k not in talked and k.line not in self.said]
        if slot in ("line", "another"):
            if not lines:
                return None, []
            wanted = self.core if slot == "line" and self.core in lines else None
            known = wanted if wanted and self.draw.random() < 0.6 else self.draw.choice(lines)
            return known, [known.line]
        if slot == "kin":
            known = self.draw.choice(self.kin) if self.kin else None
            return known, [known.line] if known else []
        if slot in ("more", "why"):
            for known in (spoken_of, self.core):
                if known and (texts := getattr(known.fact, slot)):
                    return known, texts
            return None, []
        if slot in NAMED:
            topic, value = NAMED[slot]
            for known in self.known:
                if known.fact.topic == topic and value in known.values:
                    return known, [known.values[value]]
            return None, []
        if not self.core:
            return None, []
        core = self.core.fact
        if slot.startswith("doing"):
            busy = [k for k in self.known if k.fact.doing]
            if not busy:
                return None, []
            core_first = core.doing and (slot == "doing" or self.draw.random() < 0.5)
            known = self.core if core_first else self.draw.choice(busy)
            return known, known.fact.doing
        return self.core, [{"who": core.who, "one": core.one, "where": core.where}[slot]]

    def speak(self, text: str) -> str:
        """The text in the persona's voice."""
        return self.voice.wrap(self.draw, text) if self.voice else text
