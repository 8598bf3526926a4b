"""Learning to tell the gold reply from replies of other dialogues, beside learning to say it (`--rivals N`).

Run: `python -m train.finetune --data personachat --rivals 4 --out outputs/mine`

    main      <system persona> <user hi> <assistant> hello you <end> <user ..> <assistant> not much <end>
    rivals                                    `-> i sell shoes <end>                    `-> my cat <end>
                                              `-> so am i <end>                         `-> oh no <end>

All stand in one row: a rival sees the conversation up to its branch, and itself. The score of a reply is what the context
adds to it, log p(reply | context) - log p(reply | nothing), as train.evaluate ranks candidates; the loss is the
cross-entropy of the gold one among N + 1. The second term is computed once, with the model that training starts from.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from persona_bot.errors import UserError
from train.examples import IGNORED, Example


class Reply(NamedTuple):
    """A reply's ids with its end token, and its log likelihood as a reply of nobody to nothing."""

    ids: list[int]
    nothing: float


class RankedExample(NamedTuple):
    """A conversation, where its replies start, and for each of them the gold reply and its rivals."""

    example: Example
    starts: list[int]
    contests: list[list[Reply]]  # the gold reply first

    @property
    def ids(self) -> list[int]:
        """All that a row must hold: the conversation, then every rival without its end token."""
        return self.example.ids + [i for contest in self.contests for rival in contest[1:] for i in rival.ids[:-1]]

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


def add_rivals(examples: Sequence[Example], nothing: dict[tuple[int, ...], float], count: int, seed: int) -> list[RankedExample]:
    """Each example with `count` replies of other examples against each of its own; `nothing`: log likelihood by ids.

    Raises UserError where there are too few replies to draw from."""
    draw = random.Random(seed)
    pool = sorted(nothing)
    ranked = []
    for example in examples:
        starts, replies = replies_of(example)
        own = {tuple(reply) for reply in replies}
        if len(pool) < count + len(own):
            raise UserError(f"--rivals {count} needs more different replies than these dialogues have; lower it, or add dialogues.")
        contests = []
        for reply in replies:
            rivals = [ids for ids in draw.sample(pool, count + len(own)) if ids not in own][:count]
            contests.append([Reply(list(ids), nothing[tuple(ids)]) for ids in (reply, *rivals)])
        ranked.append(RankedExample(example, starts, contests))
    return ranked


def collate_ranked(rows: Sequence[Sequence[RankedExample]]) -> dict[str, torch.Tensor]:
    """Rows -> one row (1, T): ids, positions, targets of the gold replies, a mask (1, 1, T, T) and what ranking_loss reads.

    choices (C, N + 1, L): index into the predictions (gold positions, then rival positions) of each token of each choice;
    choice_ids: the ids there, IGNORED beyond a reply's end; nothing (C, N + 1). `predicts` (K,): positions of the predictions.
    """
    ids, positions, targets, owners, anchors = [], [], [], [], []
    predicts_gold, rivals_at, contests = [], [], []
    for number, (example, starts, rounds) in enumerate(e for row in rows for e in row):
        base = len(ids)
        ids += example.ids
        positions += range(len(example.ids))
        targets += example.targets
        owners += [(number, 0)] * len(example.ids)
        anchors += range(len(example.ids))
        predicts_gold += [base + t for t, target in enumerate(example.targets) if target != IGNORED]
        branch = 0
        for start, contest in zip(starts, rounds, strict=True):
            places = [[base + start - 1 + k for k in range(len(contest[0].ids))]]
            for rival in contest[1:]:
                branch += 1
                new = range(len(ids), len(ids) + len(rival.ids) - 1)
                places.append([base + start - 1, *new])
                ids += rival.ids[:-1]
                positions += range(start, start + len(new))
                targets += [IGNORED] * len(new)
                owners += [(number, branch)] * len(new)
                anchors += [start - 1] * len(new)
                rivals_at += new
            contests.append((contest, places))
    predicts = predicts_gold + rivals_at
    index = {place: k for k, place in enumerate(predicts)}
    longest = max(len(reply.ids) for contest, _ in contests for reply in contest)
    pad = [0] * longest
    labels = torch.tensor([targets])
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "attention_mask": tree_mask(owners, positions, anchors),
        "labels": labels,
        "shift_labels": labels,
        "predicts": torch.tensor(predicts),
        "choices": torch.tensor([[([index[p] for p in place] + pad)[:longest] for place in places] for _, places in contests]),
        "choice_ids": torch.tensor([[(reply.ids + [IGNORED] * longest)[:longest] for reply in contest] for contest, _ in contests]),
        "nothing": torch.tensor([[reply.nothing for reply in contest] for contest, _ in contests]),
    }


def tree_mask(owners: Sequence[tuple[int, int]], positions: Sequence[int], anchors: Sequence[int]) -> torch.Tensor:
    """(1, 1, T, T), True where a position may look: its own branch up to itself, its conversation up to its anchor.

    `owners`: (conversation, branch) of each position, branch 0 the conversation itself.
    """
    conversation, branch = torch.tensor(owners).T
    place, position, anchor = torch.arange(len(owners)), torch.tensor(positions), torch.tensor(anchors)
    same = conversation[:, None] == conversation[None]
    in_branch = (branch[:, None] == branch[None]) & (place[None] <= place[:, None])
    in_main = (branch[None] == 0) & (position[None] <= anchor[:, None])
    return (same & (in_branch | in_main))[None, None]


def losses(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(nats of the gold replies, summed; cross-entropy of the contests, summed; supervised tokens)."""
    names = ("input_ids", "position_ids", "attention_mask")
    logits = model(**{name: batch[name] for name in names}, logits_to_keep=batch["predicts"], use_cache=False).logits[0]
    gold = batch["labels"][0]
    gold = gold[gold != IGNORED]
    log_p = logits.float().log_softmax(-1)  # (K, vocabulary)
    kept = batch["choice_ids"] != IGNORED
    tokens = log_p[batch["choices"], batch["choice_ids"].clamp(min=0)] * kept  # (C, N + 1, L)
    scores = tokens.sum(-1) - batch["nothing"]
    first = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return F.nll_loss(log_p[: len(gold)], gold, reduction="sum"), F.cross_entropy(scores, first, reduction="sum"), len(gold)
