"""From logits to the next token: what may not be said, what was said before, and a draw.

Run: nothing by itself; generation.py picks every token with it.
"""

from collections.abc import Sequence

import torch

from persona_bot.checkpoint import Checkpoint

FINISH_WITHIN = 16  # tokens before max_tokens from which on a reply stops at the end of its sentence ..
URGENCY = 0.5  # .. and is drawn towards one: so much is added to the logits of . ! ? for each token over
LIKELY = 1e-5  # the tokens above nearly always hold the likeliest 90 %


class Sampler:
    """Draws the next token, in transformers' own order: what is forbidden, repetition, temperature, top-k, top-p.

    `settings` are generation.Settings.
    """

    def __init__(self, checkpoint: Checkpoint, settings, earlier: list[int]):
        self.settings = settings
        self.encode, self.decode = checkpoint.layout.encode, checkpoint.layout.decode
        self.earlier = earlier  # the persona's earlier replies, each with its end token
        self.start: list[int] = []  # what stands for the reply's first token in the search for repeated runs
        self.stop_ids = sorted(checkpoint.layout.stop_ids)
        self.never = sorted(checkpoint.layout.control_ids - checkpoint.layout.stop_ids)
        self.sentence_ends = sorted({checkpoint.layout.encode(mark)[-1] for mark in ".!?"})
        self.generator = torch.Generator()
        self.generator.manual_seed(settings.seed) if settings.seed is not None else self.generator.seed()

    def pick(self, logits: torch.Tensor, ids: list[int]) -> int:
        """The next token after the reply's `ids`, from the model's logits (vocabulary,)."""
        scores = logits.clone()
        scores[self.never] = -torch.inf
        if len(ids) < self.settings.min_tokens:
            scores[self.stop_ids] = -torch.inf
        over = len(ids) - max(self.settings.max_tokens - FINISH_WITHIN, self.settings.min_tokens)
        if over > 0:
            scores[self.sentence_ends] += URGENCY * over
        if ids and self.settings.repetition_penalty != 1:
            said = list(set(ids))
            scores[said] = penalized(scores[said], self.settings.repetition_penalty)
        if self.settings.no_repeat_ngram:
            if len(ids) == 1:
                self.start = self._as_inside(ids[0])
            scores[repeating(self.earlier + self.start + ids[1:], self.settings.no_repeat_ngram)] = -torch.inf
        if self.settings.temperature == 0:
            return int(scores.argmax())
        probabilities, tokens = self.choices(scores)
        return int(tokens[torch.multinomial(probabilities, 1, generator=self.generator)])

    def _as_inside(self, first: int) -> list[int]:
        """The reply's first token as it would stand inside a text: many tokenizers have another one for a word at the very start."""
        return self.encode(f" {self.decode([first])}")

    def choices(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(weights, tokens) to draw from: temperature, then top-k, then top-p, as transformers has them.

        Sorting the whole vocabulary would take as long as a third of the forward pass, so it is done only where needed.
        """
        probabilities = (scores / self.settings.temperature).softmax(-1)
        if self.settings.top_k:
            likeliest, tokens = probabilities.topk(min(self.settings.top_k, len(scores)))
            likeliest = likeliest / likeliest.sum()
        else:
            likely = (probabilities > LIKELY).nonzero()[:, 0]
            likeliest, order = probabilities[likely].sort(descending=True, stable=True)
            tokens = likely[order]
            if likeliest.sum() < self.settings.top_p:
                likeliest, tokens = probabilities.sort(descending=True, stable=True)
        before = likeliest.cumsum(0) - likeliest
        count = int((before < self.settings.top_p).sum())
        tokens, order = tokens[:count].sort()  # else two that are about as likely would swap places, and the seed draw the other
        return likeliest[:count][order], tokens


def penalized(scores: torch.Tensor, penalty: float) -> torch.Tensor:
    """The logits of what was said already, made less likely (CTRL, Keskar et al. 2019, section 4.1)."""
    return torch.where(scores < 0, scores * penalty, scores / penalty)


def repeating(ids: Sequence[int], size: int) -> list[int]:
    """The tokens that would end a run of `size` tokens that is in `ids` already."""
    last = ids[len(ids) - size + 1 :]
    return [ids[k + size - 1] for k in range(len(ids) - size + 1) if ids[k : k + size - 1] == last]
