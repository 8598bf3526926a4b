"""From logits to the next token: what may not be said, what was said before, and a draw."""

from collections.abc import Sequence

import numpy as np
import torch

from persona_bot.errors import UserError
from persona_bot.prompt import Layout

# tokens before max_tokens from which on a reply stops at the end of its sentence ..
FINISH_WITHIN = 16
# .. and is drawn towards one: so much is added to the logits of . ! ? for each token over
URGENCY = 0.5
LIKELY = 1e-5  # the tokens above nearly always hold the likeliest 90 %


class Sampler:
    """Draws the next token, in transformers' own order: what is forbidden, repetition, temperature, top-k, top-p.

    `settings` are generation.Settings.
    """

    def __init__(self, layout: Layout, settings, earlier: list[int]):
        self.settings = settings
        self.encode, self.decode = layout.encode, layout.decode
        self.earlier = earlier  # the persona's earlier replies, each with its end token
        # what stands for the reply's first token in the search for repeated runs
        self.start: list[int] = []
        self.stop_ids = sorted(layout.stop_ids)
        self.never = sorted(layout.control_ids - layout.stop_ids)
        self.sentence_ends = sorted({layout.encode(mark)[-1] for mark in ".!?"})
        self.random = np.random.default_rng(settings.seed)

    def pick(self, logits: torch.Tensor, ids: list[int]) -> int:
        """The next token after the reply's `ids`, from the model's logits (vocabulary,) float32 on the CPU.

        In NumPy but for the softmax: its small steps cost a tenth of torch's, and sixteen visitors wait for each other's.
        """
        scores = logits.numpy().copy()
        if np.isnan(scores.max()):  # no number where any is none
            raise UserError(
                "The model computed no valid number for the next word; its weights may be damaged, so load another checkpoint."
            )
        scores[self.never] = -np.inf
        if len(ids) < self.settings.min_tokens:
            scores[self.stop_ids] = -np.inf
        over = len(ids) - max(self.settings.max_tokens - FINISH_WITHIN, self.settings.min_tokens)
        if over > 0:
            scores[self.sentence_ends] += URGENCY * over
        if ids and self.settings.repetition_penalty != 1:
            said = list(set(ids))
            scores[said] = penalized(scores[said], self.settings.repetition_penalty)
        if self.settings.no_repeat_ngram:
            if len(ids) == 1:
                self.start = self._as_inside(ids[0])
            scores[
                repeating(self.earlier + self.start + ids[1:], self.settings.no_repeat_ngram)
            ] = -np.inf
        if self.settings.temperature == 0:
            return int(scores.argmax())
        weights, tokens = self.choices(scores)
        shares = weights.cumsum(dtype=np.float64)
        return int(tokens[np.searchsorted(shares, self.random.random() * shares[-1], side="right")])

    def is_last(self, ids: Sequence[int]) -> bool:
        """Whether nothing comes after the reply's newest token."""
        return len(ids) >= self.settings.max_tokens or (bool(ids) and ids[-1] in self.stop_ids)

    def _as_inside(self, first: int) -> list[int]:
        """The reply's first token as it would stand inside a text: many tokenizers have another one for a word at the very start."""
        return self.encode(f" {self.decode([first])}")

    def choices(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(weights, tokens) to draw from: temperature, then top-k, then top-p, as transformers has them.

        Sorting the whole vocabulary would take as long as a third of the forward pass, so it is done only where needed.
        """
        probabilities = (torch.from_numpy(scores) / self.settings.temperature).softmax(-1).numpy()
        few = self.settings.top_k and min(self.settings.top_k, len(scores))
        if few:
            likely = np.argpartition(probabilities, len(scores) - few)[-few:]
        else:
            likely = np.flatnonzero(probabilities > LIKELY)
            if probabilities[likely].sum() < self.settings.top_p:
                likely = np.arange(len(scores))
        tokens = likely[np.argsort(-probabilities[likely], kind="stable")]
        weights = probabilities[tokens]
        before = weights.cumsum() - weights
        most = self.settings.top_p * weights.sum() if few else self.settings.top_p
        tokens = np.sort(
            tokens[: (before < most).sum()]
        )  # else two that are about as likely would swap places, and the seed draw the other
        return probabilities[tokens], tokens


def penalized(scores: np.ndarray, penalty: float) -> np.ndarray:
    """The logits of what was said already, made less likely (CTRL, Keskar et al. 2019, section 4.1)."""
    return np.where(scores < 0, scores * penalty, scores / penalty)


def repeating(ids: Sequence[int], size: int) -> list[int]:
    """The tokens that would end a run of `size` tokens that is in `ids` already."""
    last = ids[len(ids) - size + 1 :]
    return [ids[k + size - 1] for k in range(len(ids) - size + 1) if ids[k : k + size - 1] == last]
