"""Conversations that begin alike, read once; and where the wrong candidates of a reply differ from it first.

    <system persona> <user hi> <assistant> hello <end> <user> | where do you work? <end> <assistant> for a bank. <end>
                                  what is shared, the trunk   | any pets? <end> <assistant> no, not me. <end>
                                                                                            `yes: what a wrong candidate has there

`train/data/interviews.py` makes such dialogues; any utterances that do not go on from one another are read like this.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from persona_bot.errors import UserError
from persona_bot.layouts import Layout
from train.data.dialogues import Dialogue
from train.data.examples import Example, examples_of, replies_of, wrong_replies


class BranchedExample(NamedTuple):
    """Conversations that begin alike: what they share, and how each goes on from there."""

    trunk: Example
    branches: list[Example]

    @property
    def ids(self) -> list[int]:
        return [i for part in (self.trunk, *self.branches) for i in part.ids]

    @property
    def targets(self) -> list[int]:
        return [target for part in (self.trunk, *self.branches) for target in part.targets]

    @property
    def supervised(self) -> int:
        return self.trunk.supervised + sum(branch.supervised for branch in self.branches)

    def apart(self) -> list[Example]:
        """Each conversation on its own."""
        trunk, end = self.trunk, len(self.trunk.ids)
        return [
            Example(
                trunk.ids + branch.ids,
                None,
                trunk.targets + branch.targets,
                trunk.differences + tuple((end + at, ids) for at, ids in branch.differences),
            )
            for branch in self.branches
        ]


def branched_examples(
    layout: Layout,
    dialogues: Sequence[Dialogue],
    length: int,
    both_sides: bool = False,
    shuffle_persona: random.Random | None = None,
    num_wrong: int = 0,
) -> list[Example | BranchedExample]:
    """As examples.dialogue_examples, but conversations of one dialogue share how they begin where they fit into `length` together.

    `num_wrong`: so many wrong candidates of each reply are marked where they differ from it first. Raises UserError where it is
    asked for and there are none.
    """
    if num_wrong and all(
        len(utterance.candidates) < 2 for d in dialogues for utterance in d.utterances
    ):
        raise UserError(
            "--first-difference learns from wrong candidates, and no reply of the data has some; leave it out."
        )
    examples: list[Example | BranchedExample] = []
    for dialogue in dialogues:
        told = examples_of(layout, dialogue, length, both_sides, shuffle_persona)
        if num_wrong:
            wrong = wrong_replies(layout, [dialogue], num_wrong)
            told = [with_differences(example, wrong) for example in told]
        examples += branched(told, length)
    return examples


def branched(examples: Sequence[Example], length: int) -> Sequence[Example | BranchedExample]:
    """The examples as one with branches; as they are where that is longer than `length`, or where they have token types."""
    if len(examples) < 2 or any(example.token_types for example in examples):
        return examples
    places = zip(*(zip(e.ids[:-1], e.targets[:-1], strict=True) for e in examples), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda at: len(set(at)) == 1, places))
    if not shared:
        return examples
    first, *_ = examples
    trunk = Example(
        first.ids[:shared],
        None,
        first.targets[:shared],
        tuple(d for d in first.differences if d[0] < shared),
    )
    branches = [
        Example(
            e.ids[shared:],
            None,
            e.targets[shared:],
            tuple((at - shared, ids) for at, ids in e.differences if at >= shared),
        )
        for e in examples
    ]
    whole = BranchedExample(trunk, branches)
    return [whole] if len(whole.ids) <= length else examples


def with_differences(
    example: Example, wrong: Mapping[tuple[int, ...], Sequence[Sequence[int]]]
) -> Example:
    """The example with the places where the wrong candidates of its replies differ from them first."""
    instead: dict[int, set[int]] = {}
    for start, reply in zip(*replies_of(example), strict=True):
        for other in wrong.get(tuple(reply), ()):
            at = next(
                (k for k, (a, b) in enumerate(zip(reply, other, strict=False)) if a != b), None
            )
            if at is not None:
                instead.setdefault(start - 1 + at, set()).add(other[at])
    return example._replace(
        differences=tuple((at, tuple(sorted(ids))) for at, ids in sorted(instead.items()))
    )
