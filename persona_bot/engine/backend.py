"""Ids in, ids out: the one interface behind which every model of this machine stands, and what implements it.

    BatchedBackend   passes shared by all visitors (batching.py), over a model with forward(parts), forward_branches, new_cache
    SerialBackend    a transformers module as it is, two replies at a time, with transformers' cache or none

A backend knows neither texts nor layouts.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from types import SimpleNamespace
from typing import Protocol

import torch
from transformers.cache_utils import DynamicCache

from persona_bot.engine.attention import Part
from persona_bot.engine.batching import Engine, Request, as_user_error
from persona_bot.engine.int8_linear import has_fast_int8
from persona_bot.engine.likelihood import (
    can_crop,
    keeps_positions,
    logits_at,
    new_cache,
    score_one_by_one,
    score_together,
    types_with,
)
from persona_bot.engine.llama import FastLlama, can_run
from persona_bot.engine.prefix_cache import PrefixCache
from persona_bot.engine.sampler import Sampler
from persona_bot.errors import UserError
from persona_bot.prompt import Prompt

TICK = 0.05  # seconds between looks at whether it is somebody's turn


class Backend(Protocol):
    """A model's passes. Raises UserError with one sentence, whatever fails."""

    at_once: int  # replies that are worth writing at the same time

    def generate(self, prompt: Prompt, sampler: Sampler, keep: bool = True) -> Iterator[int | None]:
        """The tokens as they are drawn, the end token too; None while others come first.

        What was read and written is kept for the next turn unless `keep` is False. Closing it never waits for anything:
        the garbage collector may do it, in any thread, whatever locks that thread holds.
        """

    def prefill(self, prompt: Prompt) -> None:
        """Reads the prompt, so that `generate` and `score` behind it have only its last id to read."""

    def score(self, prompt: Prompt, replies: Sequence[list[int]]) -> list[float]:
        """Log likelihood of each reply behind the prompt; replies end with their end token."""

    def close(self) -> None:
        """Gives back what the backend holds beside memory."""


class Reader:
    """In a sampler's place where a prompt is read and nothing is written: one token, any."""

    settings = SimpleNamespace(max_tokens=1)

    def sample(self, logits: torch.Tensor, ids: list[int]) -> int:
        return 0

    def is_last(self, ids: Sequence[int]) -> bool:
        return bool(ids)


@contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """Whatever fails inside becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise as_user_error(error) from error


class BatchedBackend:
    """A model whose passes visitors share."""

    at_once = 16

    def __init__(self, model: FastLlama):
        self.model, self.engine, self.prefixes = model, Engine(model), PrefixCache()

    def generate(self, prompt: Prompt, sampler: Sampler, keep: bool = True) -> Iterator[int | None]:
        with told_in_one_sentence():
            self.engine.reap_finished()  # so that the turn before has given back what it read
            cache, known = self.prefixes.take(prompt.ids, self.model.new_cache)
            give_back = self.prefixes.give_back if keep else None
            request = Request(prompt.ids, known, cache, sampler, give_back, prompt.token_types)
            yield from self.engine.tokens(request)

    def prefill(self, prompt: Prompt) -> None:
        for _ in self.generate(prompt, Reader()):
            pass
        self.engine.reap_finished()

    @torch.inference_mode()
    def score(self, prompt: Prompt, replies: Sequence[list[int]]) -> list[float]:
        """The prompt, then every candidate as a branch behind it, in one pass."""
        with told_in_one_sentence():
            self.engine.reap_finished()
            cache, known = self.prefixes.take(prompt.ids, self.model.new_cache)
            types = prompt.token_types
            logits = self.model.forward([Part(prompt.ids[known:], cache, types and types[known:])])
            later = [reply[:-1] for reply in replies]
            if any(later):
                logits = torch.cat(
                    [logits, self.model.forward_branches(later, cache, types and types[-1])]
                )
            self.prefixes.give_back(prompt.ids, cache)
            # row 0 predicts every reply's first id
            starts = accumulate(map(len, later), initial=1)
            rows = [
                0 if k == 0 else start + k - 1
                for start, reply in zip(starts, replies, strict=False)
                for k in range(len(reply))
            ]
            targets = [i for reply in replies for i in reply]
            values = logits[rows, targets] - logits.logsumexp(-1)[rows]
            parts = values.split([len(reply) for reply in replies])
            return [part.sum().item() for part in parts]

    def close(self) -> None:
        self.prefixes.clear()


class Place:
    """A place in the line for a SerialBackend. Who leaves only says so: closing a reply takes no lock."""

    left = False


class SerialBackend:
    """A transformers module, whatever its architecture and device."""

    at_once = 2  # more would only slow each other down

    def __init__(self, model: torch.nn.Module):
        self.model, self.prefixes = model, PrefixCache()
        cache = new_cache(model)
        self.has_cache = cache is not None
        self.keeps_positions, self.can_crop = keeps_positions(cache), can_crop(cache)
        self._line: list[Place] = []
        self._lock = threading.Lock()

    def generate(self, prompt: Prompt, sampler: Sampler, keep: bool = True) -> Iterator[int | None]:
        place = Place()
        with self._lock:
            self._line.append(place)
        try:
            while not self._is_served(place):
                yield None
                time.sleep(TICK)
            with told_in_one_sentence():
                yield from self._tokens(prompt, sampler, keep)
        finally:
            place.left = True

    def _is_served(self, place: Place) -> bool:
        with self._lock:
            self._line = [other for other in self._line if not other.left]
            return place in self._line[: self.at_once]

    def _tokens(self, prompt: Prompt, sampler: Sampler, keep: bool) -> Iterator[int]:
        cache, done = self._cache(prompt)
        ids: list[int] = []
        # what the cache is known to hold; a failed pass may have left it half filled
        computed: list[int] = []
        try:
            while not sampler.is_last(ids):
                sequence, types = prompt.ids + ids, types_with(prompt, ids)
                computed = []
                logits = self._pass(sequence, types, cache, done)
                computed, done = sequence, len(sequence) if cache is not None else 0
                ids.append(sampler.sample(logits, ids))
                yield ids[-1]
        finally:
            if keep and self.keeps_positions:
                self.prefixes.give_back(computed, cache)

    def _cache(self, prompt: Prompt):
        """(a cache, how many ids of the prompt it holds); of earlier replies' where it can be cut to what both begin with."""
        if self.keeps_positions:
            return self.prefixes.take(prompt.ids, self._empty)
        return (self._empty() if self.has_cache else None), 0

    def _empty(self) -> DynamicCache:
        return DynamicCache(config=self.model.config)

    def _pass(self, sequence: list[int], types: list[int] | None, cache, done: int) -> torch.Tensor:
        """One pass over what the cache does not hold; the logits of the last position, (vocabulary,) float32 on the CPU."""
        ids = sequence[done:]
        inputs = {} if cache is None else {"past_key_values": cache, "use_cache": True}
        logits, _ = logits_at(self.model, ids, types and types[done:], [len(ids) - 1], **inputs)
        return logits[0].float().cpu()

    def prefill(self, prompt: Prompt) -> None:
        if self.keeps_positions:
            for _ in self.generate(prompt, Reader()):
                pass

    def score(self, prompt: Prompt, replies: Sequence[list[int]]) -> list[float]:
        with told_in_one_sentence():
            if not self.can_crop:
                return score_one_by_one(self.model, prompt, replies).log_likelihoods
            cache, known = self._cache(prompt)
            scores = score_together(self.model, prompt, replies, cache, known)
            self.prefixes.give_back(prompt.ids, cache)
            return scores.log_likelihoods

    def close(self) -> None:
        self.prefixes.clear()


def backend_for(model: torch.nn.Module, max_positions: int) -> Backend:
    """The backend that answers fastest for a transformers module on its device."""
    if model.device.type == "cpu" and can_run(model.config):
        return fast_llama_backend(model.config, model.state_dict(), max_positions)
    return SerialBackend(model)


def fast_llama_backend(config, tensors, max_positions: int) -> BatchedBackend:
    """A plain Llama's weights on a CPU, in int8 where the CPU multiplies that fast."""
    return BatchedBackend(FastLlama(config, tensors, max_positions, has_fast_int8()))
