"""Dialogues -> batches for the double heads: every reply several times, with the gold reply last and with other people's.

    <bos> persona <speaker2> hi there <speaker1> hello you <eos>      learnt word by word, and "true" at <eos>
    <bos> persona <speaker2> hi there <speaker1> i sail    <eos>      only "false" at <eos>

The ids, token types and targets are those of simpletransformers' ConvAIModel. On purpose different: a batch is padded to
its own longest sequence, not to the longest of all data; the other people's replies are drawn anew each epoch from all
candidates, not always the same ones, and from other dialogues where a file leaves them out; a history too long for the
model loses its oldest turns instead of raising, a wrong candidate its last words, and a reply that does not fit is left out.
"""

import copy
import functools
import hashlib
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from persona_bot.layouts import ConvaiLayout
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt
from train.data.dialogues import Dialogue
from train.data.fitting import least_tokens, that_fit


class Sequences(NamedTuple):
    """One reply's candidates, the gold last, behind their common prompt."""

    ids: list[list[int]]
    token_types: list[list[int]]
    start: int  # where the candidates begin in every sequence


class Batch(NamedTuple):
    """S sequences of at most T ids, padded on the right; no mask is needed, since attention looks to the left only."""

    ids: torch.Tensor  # (S, T)
    token_types: torch.Tensor  # (S, T)
    ends: torch.Tensor  # (S,) the position of each <eos>, where the ranking head looks
    # (B, C) the sequences of each example, the gold last, -1 in front where there are fewer
    examples: torch.Tensor
    learnt: torch.Tensor  # (N,) flat positions in (S, T) that predict an id of a gold reply
    targets: torch.Tensor  # (N,) those ids

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device) for tensor in self))


class ConvaiExamples:
    """The examples of some dialogues by number; nothing is tokenized before it is asked for, and no text twice."""

    def __init__(
        self,
        layout: ConvaiLayout,
        dialogues: Sequence[Dialogue],
        context_length: int,
        candidates: int = 2,
        permutations: int = 1,
        seed: int = 0,
    ):
        """`context_length`: the model's positions; `candidates`: sequences an example, 0 for all; `permutations`: orders of the persona."""
        self.context_length = context_length
        self.candidates, self.seed = candidates, seed
        self.layout = copy.copy(layout)
        # no text of the data is ever encoded twice
        self.layout.encode = functools.cache(layout.encode)  # type: ignore[method-assign]  # of the copy
        self.dialogues = that_fit(self.layout, dialogues, context_length, only_gold=True)
        self.epoch = 0  # whoever trains counts it up
        self.numbers = [
            (d, u, turn)
            for d, dialogue in enumerate(self.dialogues)
            for turn in range(permutations)
            for u in range(len(dialogue.utterances))
        ]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Sequences:
        """Example `number` as it is in `self.epoch`."""
        return self.sequences(number, self.epoch)

    def sequences(self, number: int, epoch: int) -> Sequences:
        """Example `number` as it is in `epoch`."""
        d, u, turn = self.numbers[number]
        sentences = self.dialogues[d].personality
        # simpletransformers' personality_permutations: the last sentence comes to the front
        first = -turn % max(len(sentences), 1)
        persona = Persona("", sentences[first:] + sentences[:first])
        history = self.dialogues[d].utterances[u].history
        # the gold fits; a longer wrong one is cut
        room = self.context_length - least_tokens(self.layout, sentences, history) - 1
        replies = [
            [*self.layout.encode(text)[:room], self.layout.end_id]
            for text in self.candidates_of(number, epoch)
        ]
        prompt = build_prompt(
            self.layout, persona, history, self.context_length - max(map(len, replies))
        )
        return Sequences(
            [prompt.ids + reply for reply in replies],
            [(prompt.token_types or []) + [self.layout.speaker1] * len(reply) for reply in replies],
            len(prompt.ids),
        )

    def candidates_of(self, number: int, epoch: int) -> list[str]:
        """The gold reply behind as many others as are wanted; which ones is drawn from seed, number and epoch."""
        d, u, _ = self.numbers[number]
        *others, gold = self.dialogues[d].utterances[u].candidates
        wanted = self.candidates - 1 if self.candidates > 0 else len(others)
        draw = random.Random(f"{self.seed} {number} {epoch}")
        if len(others) > wanted:
            others = draw.sample(others, wanted)
        elif len(others) < wanted:
            some = draw.sample(
                range(len(self.dialogues)), min(len(self.dialogues), wanted - len(others) + 1)
            )
            strangers = [
                draw.choice(self.dialogues[k].utterances).candidates[-1] for k in some if k != d
            ]
            others += strangers[: wanted - len(others)]
        return [*others, gold]

    @functools.cached_property
    def learnt(self) -> int:
        """The ids that an epoch learns."""
        golds = [self.dialogues[d].utterances[u].candidates[-1] for d, u, _ in self.numbers]
        return sum(len(self.layout.encode(gold)) + 1 for gold in golds)

    def fingerprint(self) -> str:
        """The same for the same dialogues, in the same order."""
        digest = hashlib.sha256()
        for dialogue in self.dialogues:
            digest.update(repr(dialogue).encode("utf-8", "replace"))
        return digest.hexdigest()


def collate(examples: Sequence[Sequences], pad: int) -> Batch:
    """Examples -> one batch, padded to its longest sequence."""
    rows = [ids for example in examples for ids in example.ids]
    types = [ids for example in examples for ids in example.token_types]
    width, most = max(map(len, rows)), max(len(example.ids) for example in examples)
    which: list[list[int]] = []
    learnt: list[int] = []
    targets: list[int] = []
    first = 0
    for example in examples:
        count = len(example.ids)
        which.append([-1] * (most - count) + list(range(first, first + count)))
        gold_row = (first + count - 1) * width
        learnt += range(gold_row + example.start - 1, gold_row + len(example.ids[-1]) - 1)
        targets += example.ids[-1][example.start :]
        first += count
    return Batch(
        torch.tensor([row + [pad] * (width - len(row)) for row in rows]),
        torch.tensor([row + [pad] * (width - len(row)) for row in types]),
        torch.tensor([len(row) - 1 for row in rows]),
        torch.tensor(which),
        torch.tensor(learnt),
        torch.tensor(targets),
    )


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers 0..count-1 in an order of this epoch's own."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).tolist()


def losses(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross-entropy of the learnt ids (nats), and of choosing the gold reply among the candidates.

    `model`: one with double heads. Logits are computed where something is learnt only; simpletransformers computes them at every position of every row.
    """
    # (S, T, width)
    hidden = model.transformer(batch.ids, token_type_ids=batch.token_types).last_hidden_state
    scores = model.multiple_choice_head(hidden, batch.ends).squeeze(-1)  # (S,)
    logits = model.lm_head(hidden.flatten(0, 1)[batch.learnt])  # (N, vocabulary)
    word_loss = torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
    # (B, C)
    by_example = scores.float()[batch.examples].masked_fill(batch.examples < 0, -torch.inf)
    choice_loss = -by_example.log_softmax(-1)[:, -1].sum()
    return word_loss, choice_loss
