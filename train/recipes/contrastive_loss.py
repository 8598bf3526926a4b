"""Learning to tell the gold reply from replies of other dialogues, beside learning to say it (`--rivals N`).

Run: `python -m train.finetune --data personachat --rivals 4 --out outputs/mine`

    conversation   <system persona> <user hi> <assistant> hello you <end> <user ..> <assistant> not much <end>
                                                        `-> i sell shoes <end>             `-> my cat <end>
    nothing        <system> <user> <assistant> `-> hello you <end>
                                               `-> not much <end>
                                               `-> i sell shoes <end>  ..

All stand in one row: a branch sees its trunk up to where it starts, and itself. The score of a reply is what the context
adds to it, log p(reply | context) - log p(reply | nothing), as train.evaluate ranks candidates; the loss is the
cross-entropy of the gold reply among N + 1. Both terms learn. The gold replies are also learnt as replies to nothing, so
that the second term stays what people say at all.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from persona_bot.errors import UserError
from train.data.examples import IGNORED, Example
from train.recipes.packed_attention import packed_logits

# times N: from so many replies each conversation draws its rivals, because each is read once more,
# to nothing
POOL = 2
TO_NOTHING = 0.05  # nats of saying the gold reply to nothing, against nats of the contest


class RankedExample(NamedTuple):
    """A conversation, where its replies start, for each of them the gold reply and its rivals, and the prompt of nothing."""

    example: Example
    starts: list[int]
    contests: list[list[list[int]]]  # ids with their end token, the gold reply first
    nothing: list[int]

    @property
    def ids(self) -> list[int]:
        """All that a row must hold: both trunks and every branch, these without their end token."""
        rivals = [i for contest in self.contests for rival in contest[1:] for i in rival[:-1]]
        return (
            self.example.ids
            + rivals
            + self.nothing
            + [i for reply in self.distinct for i in reply[:-1]]
        )

    @property
    def distinct(self) -> list[tuple[int, ...]]:
        """Every gold reply and every rival once."""
        return list(dict.fromkeys(tuple(reply) for contest in self.contests for reply in contest))

    @property
    def targets(self) -> list[int]:
        return self.example.targets

    @property
    def supervised(self) -> int:
        return self.example.supervised


def replies_of(example: Example) -> tuple[list[int], list[list[int]]]:
    """(where each supervised reply starts in the ids, its ids with the end token)."""
    starts, replies = [], []
    for place, target in enumerate(example.targets):
        if target == IGNORED:
            continue
        if starts and starts[-1] + len(replies[-1]) == place + 1:
            replies[-1].append(target)
        else:
            starts.append(place + 1)
            replies.append([target])
    return starts, replies


def add_rivals(
    examples: Sequence[Example],
    nothing: list[int],
    count: int,
    seed: int,
    wrong: Mapping[tuple[int, ...], Sequence[Sequence[int]]] | None = None,
) -> list[RankedExample]:
    """Each example with `count` rivals against each of its replies; `nothing`: ids of the prompt of nobody.

    Rivals are the `wrong` candidates that the file gives a reply (train/data/examples.py: wrong_replies), then replies of
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
                f"--rivals {count} needs more different replies than these dialogues have; lower it, or add dialogues."
            )
        others = [
            ids
            for ids in draw.sample(pool, min(POOL * count + len(own), len(pool)))
            if ids not in own
        ]
        contests = []
        for reply in replies:
            given = list((wrong or {}).get(tuple(reply), ()))[:count]
            drawn = draw.sample(others, count - len(given))
            contests.append([reply, *map(list, [*given, *drawn])])
        ranked.append(RankedExample(example, starts, contests, nothing))
    return ranked


class Row:
    """One row of trunks and their branches: ids and positions by place, and the segments of packed_attention.py."""

    def __init__(self):
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

    predicts (K,): the places where something is predicted, and for each of C contests of N + 1 replies of up to L ids:
    in_context, to_nothing (C, N + 1, L): which of the predictions, 0 beyond a reply's end; choices: the ids there, IGNORED
    beyond the end.
    """
    row, targets, contests, in_context, to_nothing = Row(), [], [], [], []
    for ranked in (r for examples in rows for r in examples):
        start = row.trunk(ranked.example.ids)
        targets += [IGNORED] * (start - len(targets)) + ranked.targets
        for at, contest in zip(ranked.starts, ranked.contests, strict=True):
            gold = [start + at - 1 + k for k in range(len(contest[0]))]
            in_context.append([gold, *(row.branch(start + at - 1, rival) for rival in contest[1:])])
        end = row.trunk(ranked.nothing) + len(ranked.nothing) - 1
        alone = {reply: row.branch(end, reply) for reply in ranked.distinct}
        to_nothing += [[alone[tuple(reply)] for reply in contest] for contest in ranked.contests]
        contests += ranked.contests
    targets += [IGNORED] * (len(row.ids) - len(targets))
    predicts = sorted(
        {place for group in in_context + to_nothing for places in group for place in places}
    )
    index = {place: k for k, place in enumerate(predicts)}
    longest = max(len(reply) for contest in contests for reply in contest)

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
        "choices": padded(contests, IGNORED),
        "in_context": padded(
            [[[index[p] for p in places] for places in group] for group in in_context], 0
        ),
        "to_nothing": padded(
            [[[index[p] for p in places] for places in group] for group in to_nothing], 0
        ),
    }


def losses(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(nats of the gold replies, summed; what the contests cost, summed; supervised tokens)."""
    logits = packed_logits(model, batch, batch["predicts"])
    log_p = logits.float().log_softmax(-1)  # (K, vocabulary)
    kept = batch["choices"] != IGNORED
    ids = batch["choices"].clamp(min=0)
    # (C, N + 1)
    in_context, to_nothing = (
        (log_p[batch[name], ids] * kept).sum(-1) for name in ("in_context", "to_nothing")
    )
    gold = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    contests = (
        F.cross_entropy(in_context - to_nothing, gold, reduction="sum")
        - TO_NOTHING * to_nothing[:, 0].sum()
    )
    return -in_context[:, 0].sum(), contests, int(kept[:, 0].sum())
