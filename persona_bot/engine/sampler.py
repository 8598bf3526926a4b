"""From logits to the next token: what may not be said, what was said before, and a draw."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from persona_bot.errors import UserError
from persona_bot.layouts import Layout
from persona_bot.settings import FINISH_WITHIN, Settings

# from FINISH_WITHIN on a reply is drawn towards the end of its sentence: so much is added to the logits of . ! ? for each token over
END_BIAS = 0.5
PLAUSIBLE = 0.1  # of the likeliest token's probability, from which on a token is guided
OUT_OF_REACH = 30.0  # nats
MIN_PROB = 1e-5  # the tokens above nearly always hold the likeliest 90 %
NO_NUMBER = "The model computed no valid number for the next word; its weights may be damaged, so load another checkpoint."


class Sampler:
    """Draws the next token, in transformers' own order: what is forbidden, repetition, temperature, top-k, top-p.

    `settings` are those of a reply; `history_ids` the persona's earlier replies, each with its end token; `sentences` the persona's own.
    """

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        history_ids: Sequence[int],
        sentences: Iterable[str] = (),
    ):
        self.settings = settings
        self.encode, self.decode = layout.encode, layout.decode
        self.num_ids = layout.num_ids  # a head may have rows beyond
        self.stop_ids = sorted(layout.stop_ids)
        self.suppressed_ids = sorted(layout.control_ids - layout.stop_ids)
        ends = [layout.encode(mark)[-1:] for mark in ".!?"]  # a vocabulary may lack some
        self.sentence_ends = sorted({i for ids in ends for i in ids})
        # as it is inside a text: many vocabularies have another token for its very start
        words = {line.split()[0] for line in sentences if line.strip()}
        inside = {f" {c}{word[1:]}" for word in words for c in (word[0].lower(), word[0].upper())}
        self.openers = sorted({i for text in inside for i in layout.encode(text)[:1]})
        self.random = np.random.default_rng(settings.seed)
        self._ngrams = NgramIndex(settings.no_repeat_ngram, history_ids)

    def sample(self, logits: torch.Tensor, ids: list[int]) -> int:
        """The next token after the reply's `ids`, from the model's logits (vocabulary,) float32 on the CPU.

        In NumPy but for the softmax: its small steps cost a tenth of torch's, and sixteen visitors wait for each other's.
        """
        scores = logits[: self.num_ids].numpy().copy()
        if np.isnan(scores.max()):  # no number where any is none
            raise UserError(NO_NUMBER)
        scores[within(self.forbidden(ids), scores)] = -np.inf
        if bias := self.end_bias(ids):
            scores[within(self.sentence_ends, scores)] += bias
        if ids and self.settings.repetition_penalty != 1:
            said = list(set(ids))
            scores[said] = penalized(scores[said], self.settings.repetition_penalty)
        if self.settings.temperature == 0:
            return int(scores.argmax())
        weights, tokens = self.choices(scores)
        cdf = weights.cumsum(dtype=np.float64)
        return int(tokens[np.searchsorted(cdf, self.random.random() * cdf[-1], side="right")])

    def forbidden(self, ids: list[int]) -> list[int]:
        """What may not come next: control tokens, an end too early, and what would repeat a run of tokens."""
        banned = list(self.suppressed_ids)
        if len(ids) < self.settings.min_tokens:
            banned += self.stop_ids
        if self.settings.no_repeat_ngram:
            # many tokenizers have another token for a word at the very start of a text
            start = self.encode(f" {self.decode(ids[:1])}") if len(ids) == 1 else ()
            repeating = self._ngrams.repeating(ids, start)
            banned += [i for i in repeating if ids and self._begins_a_word(ids, i)]
        return banned

    def _begins_a_word(self, ids: list[int], token: int) -> bool:
        """Whether the token goes on with a new word, not with the rest of one, a number, a mark or the end."""
        added = self.decode([*ids[-3:], token])[len(self.decode(ids[-3:])) :]
        return bool(re.match(r"\s+[^\W\d]", added))

    def end_bias(self, ids: list[int]) -> float:
        """What is added to the logits of sentence ends, because a long reply should come to one."""
        start = max(self.settings.max_tokens - FINISH_WITHIN, self.settings.min_tokens)
        return END_BIAS * max(0, len(ids) - start)

    def penalize_afterthoughts(self, logits: torch.Tensor, ids: Sequence[int]) -> None:
        """Takes the penalty, in place, from the logits (vocabulary,) of what begins the persona's sentences, where one has just ended.

        Not within the shortest reply: nobody stops at "hello!". Before guidance, which leaves hardly any chance to what the
        model alone finds implausible, an end among it."""
        if len(ids) > self.settings.min_tokens and ids[-1] in self.sentence_ends and self.openers:
            with torch.inference_mode():  # as logits are made
                logits[within(self.openers, logits)] -= self.settings.afterthought_penalty

    def is_last(self, ids: Sequence[int]) -> bool:
        """Whether nothing comes after the reply's newest token."""
        return len(ids) >= self.settings.max_tokens or (bool(ids) and ids[-1] in self.stop_ids)

    def choices(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(weights, tokens) to draw from: temperature, then top-k, then top-p, as transformers has them.

        Sorting the whole vocabulary would take as long as a third of the forward pass, so it is done only where needed.
        """
        probabilities = (torch.from_numpy(scores) / self.settings.temperature).softmax(-1).numpy()
        few = self.settings.top_k and min(self.settings.top_k, len(scores))
        if few:
            likely = np.argpartition(probabilities, len(scores) - few)[-few:]
        else:
            likely = np.flatnonzero(probabilities > MIN_PROB)
            if probabilities[likely].sum() < self.settings.top_p:
                likely = np.arange(len(scores))
        tokens = likely[np.argsort(-probabilities[likely], kind="stable")]
        weights = probabilities[tokens]
        before = weights.cumsum() - weights
        most = self.settings.top_p * weights.sum() if few else self.settings.top_p
        # sorted: else two that are about as likely would swap places, and the seed draw the other
        tokens = np.sort(tokens[: (before < most).sum()])
        return probabilities[tokens], tokens


class NgramIndex:
    """Which tokens followed each run of size - 1 tokens so far, so that no run of `size` comes twice."""

    def __init__(self, size: int, history_ids: Sequence[int]):
        self.size = size
        self._ids: list[int] = []
        self._followers: dict[tuple[int, ...], list[int]] = {}
        self._num_reply = 0  # how many of the reply's ids are in it
        if size:
            self._extend(history_ids)

    def repeating(self, ids: Sequence[int], start: Sequence[int] = ()) -> list[int]:
        """The tokens that would end a known run after the reply's `ids`, which only grow from call to call.

        `start`: the reply's first id as it would stand inside a text, given when it is the only one."""
        self._extend(start or ids[:1] if not self._num_reply else ())
        self._extend(ids[max(1, self._num_reply) :])
        self._num_reply = len(ids)
        return list(self._followers.get(self._last(), ()))

    def _last(self) -> tuple[int, ...]:
        return tuple(self._ids[len(self._ids) - self.size + 1 :])

    def _extend(self, ids: Sequence[int]) -> None:
        for i in ids:
            if len(self._ids) >= self.size - 1:
                self._followers.setdefault(self._last(), []).append(i)
            self._ids.append(i)


def within(ids: list[int], scores: np.ndarray | torch.Tensor) -> list[int]:
    """Those that the head has a row for: a tokenizer may know more."""
    return [i for i in ids if i < len(scores)]


def penalized(scores: np.ndarray, penalty: float) -> np.ndarray:
    """The logits of what was said already, made less likely (CTRL, Keskar et al. 2019, section 4.1)."""
    return np.where(scores < 0, scores * penalty, scores / penalty)


def guided(logits: torch.Tensor, anyhow: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
    """The logits (.., vocabulary) of guided draws, from those behind the prompt and those behind nothing.

    Classifier-free guidance: what the conversation makes likelier is made likelier still (Sanchez et al. 2023, "Stay on topic
    with classifier-free guidance"), among the PLAUSIBLE tokens (Li et al. 2023, "Contrastive decoding"): else what
    hardly anybody says would come up, names and numbers misspelt among it. The others come only where none of those may.
    """
    given = logits.log_softmax(-1)
    chances = given.exp()
    more = given + (scale - 1) * (given - anyhow.log_softmax(-1))
    return torch.where(
        chances >= PLAUSIBLE * chances.amax(-1, keepdim=True), more, given - OUT_OF_REACH
    )
