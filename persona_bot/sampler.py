"""From logits to the next token: what may not be said, what was said before, and a draw.

Run: nothing by itself; generation.py picks every token with it.
"""

import torch
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from persona_bot.checkpoint import Checkpoint

FINISH_WITHIN = 16  # tokens before max_tokens from which on a reply stops at the end of its sentence ..
URGENCY = 0.5  # .. and is drawn towards one: so much is added to the logits of . ! ? for each token over
ENOUGH = 500  # tokens, in which the likeliest 90 % nearly always are


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
        self.repetition = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)
        self.no_repeat = NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram) if settings.no_repeat_ngram else None

    def pick(self, logits: torch.Tensor, ids: list[int]) -> int:
        """The next token after the reply's `ids`, from the model's logits (vocabulary,)."""
        scores = logits.clone()[None]
        scores[:, self.never] = -torch.inf
        if len(ids) < self.settings.min_tokens:
            scores[:, self.stop_ids] = -torch.inf
        over = len(ids) - max(self.settings.max_tokens - FINISH_WITHIN, self.settings.min_tokens)
        if over > 0:
            scores[:, self.sentence_ends] += URGENCY * over
        if ids:
            scores = self.repetition(torch.tensor([ids]), scores)
        if self.no_repeat and (self.earlier or ids):
            if len(ids) == 1:
                self.start = self._as_inside(ids[0])
            scores = self.no_repeat(torch.tensor([self.earlier + self.start + ids[1:]]), scores)
        if self.settings.temperature == 0:
            return int(scores.argmax())
        probabilities, tokens = self.choices(scores[0])
        return int(tokens[torch.multinomial(probabilities, 1, generator=self.generator)])

    def _as_inside(self, first: int) -> list[int]:
        """The reply's first token as it would stand inside a text: many tokenizers have another one for a word at the very start."""
        return self.encode(f" {self.decode([first])}")

    def choices(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(weights, tokens) to draw from: temperature, then top-k, then top-p, as transformers has them.

        Sorting the whole vocabulary would take as long as a third of the forward pass, so it is done only where needed.
        """
        probabilities = (scores / self.settings.temperature).softmax(-1)
        likeliest, tokens = probabilities.topk(min(self.settings.top_k or ENOUGH, len(scores)))
        if self.settings.top_k:
            likeliest = likeliest / likeliest.sum()
        elif likeliest.sum() < self.settings.top_p:
            likeliest, tokens = probabilities.sort(descending=True)
        before = likeliest.cumsum(0) - likeliest
        count = int((before < self.settings.top_p).sum())
        tokens, order = tokens[:count].sort()  # else two that are about as likely would swap places, and the seed draw the other
        return likeliest[:count][order], tokens
