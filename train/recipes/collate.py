"""Packed rows of examples -> the tensors of one forward pass.

input_ids      one conversation | what several share | how each of them goes on | ..    several rows joined to one, (1, T)
position_ids   0 1 2 3 ..       | 0 1 2 3 4          | 5 6 7 .. | 5 6 .. | 5 6  | ..
segments       (length, -1)     | (length, -1)       | (length, place of the shared part's end) ..    as packed_attention.py reads them
differences    places where wrong replies differ from the right one first, and what may be chosen there
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from train.data.branched import BranchedExample
from train.data.examples import IGNORED, Example
from train.recipes.contrastive_loss import AnyExample, RankedExample, collate_ranked


def collate(
    rows: Sequence[Sequence[AnyExample]],
    negative_weight: float = 0.0,
    difference_weight: float = 0.0,
) -> dict[str, torch.Tensor]:
    """Rows of examples -> one row (1, T) of ids, restarting positions and targets; T is the sum of their lengths."""
    ranked = [[e for e in row if isinstance(e, RankedExample)] for row in rows]
    if ranked[0]:  # then all are
        return collate_ranked(ranked) | {"negative_weight": torch.tensor(negative_weight)}
    parts = [
        part for row in rows for e in row if not isinstance(e, RankedExample) for part in split(e)
    ]
    examples = [example for example, _ in parts]
    targets = torch.tensor([[t for e in examples for t in e.targets]])
    batch = {
        "input_ids": torch.tensor([[i for e in examples for i in e.ids]]),
        "position_ids": torch.tensor([[at + 1 + p for e, at in parts for p in range(len(e.ids))]]),
        "segments": torch.tensor([(len(e.ids), at) for e, at in parts]),
        "labels": targets,  # Trainer looks for labels, and counts shift_labels as they are
        "shift_labels": targets,
    }
    if examples[0].token_types is not None:
        batch["token_type_ids"] = torch.tensor([[t for e in examples for t in e.token_types or ()]])
    return batch | differences(examples, difference_weight)


def split(example: Example | BranchedExample) -> list[tuple[Example, int]]:
    """Its segments: (what stands there, the place of the trunk where it hangs, or -1)."""
    if isinstance(example, Example):
        return [(example, -1)]
    end = len(example.trunk.ids) - 1
    return [(example.trunk, -1), *((branch, end) for branch in example.branches)]


def differences(examples: Sequence[Example], weight: float) -> dict[str, torch.Tensor]:
    """Where wrong replies differ first in a row of these examples: places (R,), and ids (R, W) to choose from, the right one first."""
    places: list[int] = []
    alternatives: list[torch.Tensor] = []
    start = 0
    for example in examples:
        for at, ids in example.differences:
            places.append(start + at)
            alternatives.append(torch.tensor([example.targets[at], *ids]))
        start += len(example.ids)
    if not (weight and places):
        return {}
    return {
        "differences": torch.tensor(places),
        "alternatives": pad_sequence(alternatives, batch_first=True, padding_value=IGNORED),
        "difference_weight": torch.tensor(weight),
    }
