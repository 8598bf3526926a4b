"""Learning to tell the gold reply from replies of other dialogues, beside learning to say it (`--negatives N`).

Run: `python -m train.finetune --data personachat --negatives 4 --out outputs/mine`

    conversation   <system persona> <user hi> <assistant> hello you <end> <user ..> <assistant> not much <end>
                                                        `-> i sell shoes <end>             `-> my cat <end>
    unconditional  <system> <user> <assistant> `-> hello you <end>
                                               `-> not much <end>
                                               `-> i sell shoes <end>  ..

All stand in one row: a branch sees its trunk up to where it starts, and itself. The score of a reply is what the context
adds to it, log p(reply | context) - log p(reply | unconditional prompt), as train.evaluate ranks candidates; the loss is
the cross-entropy of the gold reply among N + 1. Both terms learn. The gold replies are also learnt behind the unconditional
prompt, so that the second term stays what people say at all.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from persona_bot.errors import UserError
from train.data.branched import BranchedExample
from train.data.examples import IGNORED, Example, replies_of
from train.recipes.packed_attention import packed_logits

# times N: from so many replies each conversation draws its negatives, because each is read once more,
# unconditionally
POOL = 2
# nats of saying the gold reply unconditionally, against nats of telling apart
UNCONDITIONAL_WEIGHT = 0.05


class RankedExample(NamedTuple):
    """A conversation, where its replies start, for each of them the gold reply and its negatives, and the unconditional prompt."""

    example: Example
    starts: list[int]
    candidate_sets: list[list[list[int]]]  # ids with their end token, the gold reply first
    unconditional: list[int]  # ids of the unconditional prompt

    @property
    def ids(self) -> list[int]:
        """All that a row must hold: both trunks and every branch, these without their end token."""
        negatives = [
            i
            for candidates in self.candidate_sets
            for negative in candidates[1:]
            for i in negative[:-1]
        ]
        return (
            self.example.ids
            + negatives
            + self.unconditional
            + [i for reply in self.distinct for i in reply[:-1]]
        )

    @property
    def distinct(self) -> list[tuple[int, ...]]:
        """Every gold reply and every negative once."""
        return list(
            dict.fromkeys(
                tuple(reply) for candidates in self.candidate_sets for reply in candidates
            )
        )

    @property
    def targets(self) -> list[int]:
        return self.example.targets

    @property
    def supervised(self) -> int:
        return self.example.supervised


AnyExample = Example | BranchedExample | RankedExample


def add_negatives(
    examples: Sequence[Example],
    unconditional: list[int],
    count: int,
    seed: int,
    wrong: Mapping[tuple[int, ...], Sequence[Sequence[int]]] | None = None,
) -> list[RankedExample]:
    """Each example with `count` negatives against each of its replies; `unconditional`: ids of the prompt without persona and turns.

    Negatives are the `wrong` candidates that the file gives a reply (train/data/examples.py: wrong_replies), then replies of
    other examples.
    Raises UserError where there are too few replies to draw from."""
    draw = random.Random(seed)
    pool = sorted({tuple(reply) for example in examples for reply in replies_of(example)[1]})
    ranked = []
    for example in examples:
        starts, replies = replies_of(example)
        own = {tuple(reply) for reply in replies}
        if len(pool) < count + len(own):
            raise UserError(
                f"--negatives {count} needs more different replies than these dialogues have; lower it, or add dialogues."
            )
        others = [
            ids
            for ids in draw.sample(pool, min(POOL * count + len(own), len(pool)))
            if ids not in own
        ]
        candidate_sets = []
        for reply in replies:
            given = list((wrong or {}).get(tuple(reply), ()))[:count]
            drawn = draw.sample(others, count - len(given))
            candidate_sets.append([reply, *map(list, [*given, *drawn])])
        ranked.append(RankedExample(example, starts, candidate_sets, unconditional))
    return ranked


class Row:
    """One row of trunks and their branches: ids and positions by place, and the segments of packed_attention.py."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[tuple[int, int]] = []

    def trunk(self, ids: Sequence[int]) -> int:
        """Adds a trunk; returns the place of its first id."""
        start = len(self.ids)
        self._add(ids, 0, -1)
        return start

    def branch(self, at: int, reply: Sequence[int]) -> list[int]:
        """Adds a reply behind the newest trunk's place `at`; returns the places that predict its ids."""
        start, position = len(self.ids), self.positions[at]
        self._add(reply[:-1], position + 1, position)
        return [at, *range(start, len(self.ids))]

    def _add(self, ids: Sequence[int], position: int, anchor: int) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.segments.append((len(ids), anchor))


def collate_ranked(rows: Sequence[Sequence[RankedExample]]) -> dict[str, torch.Tensor]:
    """Rows -> one row (1, T): ids, positions, targets of the gold replies, segments (S, 2) and what `losses` reads.

    predicts (K,): the places where something is predicted, and for each of C candidate sets of N + 1 replies of up to L ids:
    in_context, unconditional (C, N + 1, L): which of the predictions, 0 beyond a reply's end; choices: the ids there, IGNORED
    beyond the end.
    """
    row, candidate_sets, in_context, unconditional = Row(), [], [], []
    targets: list[int] = []
    for ranked in (r for examples in rows for r in examples):
        start = row.trunk(ranked.example.ids)
        targets += [IGNORED] * (start - len(targets)) + ranked.targets
        for at, candidates in zip(ranked.starts, ranked.candidate_sets, strict=True):
            gold = [start + at - 1 + k for k in range(len(candidates[0]))]
            in_context.append(
                [gold, *(row.branch(start + at - 1, negative) for negative in candidates[1:])]
            )
        end = row.trunk(ranked.unconditional) + len(ranked.unconditional) - 1
        alone = {reply: row.branch(end, reply) for reply in ranked.distinct}
        unconditional += [
            [alone[tuple(reply)] for reply in candidates] for candidates in ranked.candidate_sets
        ]
        candidate_sets += ranked.candidate_sets
    targets += [IGNORED] * (len(row.ids) - len(targets))
    predicts = sorted(
        {place for group in in_context + unconditional for places in group for place in places}
    )
    index = {place: k for k, place in enumerate(predicts)}
    longest = max(len(reply) for candidates in candidate_sets for reply in candidates)

    def padded(groups: list, filler: int) -> torch.Tensor:
        return torch.tensor(
            [
                [(list(values) + [filler] * longest)[:longest] for values in group]
                for group in groups
            ]
        )

    labels = torch.tensor([targets])
    return {
        "input_ids": torch.tensor([row.ids]),
        "position_ids": torch.tensor([row.positions]),
        "segments": torch.tensor(row.segments),
        "labels": labels,
        "shift_labels": labels,
        "predicts": torch.tensor(predicts),
        "choices": padded(candidate_sets, IGNORED),
        "in_context": padded(
            [[[index[p] for p in places] for places in group] for group in in_context], 0
        ),
        "unconditional": padded(
            [[[index[p] for p in places] for places in group] for group in unconditional], 0
        ),
    }


def losses(
    model: torch.nn.Module, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(nats of the gold replies, summed; what telling apart costs, summed; supervised tokens)."""
    logits = packed_logits(model, batch, batch["predicts"])
    log_p = logits.float().log_softmax(-1)  # (K, vocabulary)
    is_reply = batch["choices"] != IGNORED
    ids = batch["choices"].clamp(min=0)
    # (C, N + 1)
    in_context, unconditional = (
        (log_p[batch[name], ids] * is_reply).sum(-1) for name in ("in_context", "unconditional")
    )
    gold = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    telling_apart = (
        F.cross_entropy(in_context - unconditional, gold, reduction="sum")
        - UNCONDITIONAL_WEIGHT * unconditional[:, 0].sum()
    )
    return -in_context[:, 0].sum(), telling_apart, int(is_reply[:, 0].sum())
