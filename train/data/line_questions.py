"""Questions that a persona's sentence answers, made from the sentence itself by rules of grammar, whatever it speaks of.

    i work for a bank.      where do you work?         for a bank.
    i hate long meetings.   do you like long meetings? no, i hate long meetings.

`train/data/everyday.py` asks them of personas that people wrote, so that odd trades and things are answered like common ones.
"""

import re

from train.data.line_rules import NAMED_PET, RULES
from train.data.templates import Block, Fact


def fact_of(line: str) -> Fact:
    """The sentence as a fact, with the questions that a rule makes of it; without any where none fits."""
    for rule in RULES:
        if match := re.fullmatch(rule.pattern, line.rstrip(" .!")):
            groups = [group for group in match.groups() if group]
            blocks = [
                Block([yours(q.format(*groups)) for q in asked], [a.format(*groups) for a in told])
                for asked, told in rule.blocks
            ]
            who = re.sub(r"^an? ", "the ", groups[0]) if rule.topic == "trade" else ""
            why = tuple(reason.format(*groups) for reason in rule.why)
            return Fact(rule.topic.format(*groups), [line], tuple(blocks), who, why=why)
    return Fact(line, [line])


def values_of(line: str) -> dict[str, str]:
    """What the slots of the sentence's fact hold: an animal and its name, if it tells both."""
    named = re.fullmatch(NAMED_PET, line.rstrip(" .!"))
    return {"animal": named[1], "petname": named[2]} if named else {}


def yours(question: str) -> str:
    """`do you like my job?` -> `do you like your job?`"""
    return re.sub(r"\bme\b", "you", re.sub(r"\bmy\b", "your", question))
