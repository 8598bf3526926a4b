"""One conversation at a time through a transformers model with whatever it keeps between tokens: keys and values, sliding
windows, convolutions, states, or nothing.

    reading = SerialModel(module).begin()
    reading.logits(ids)           after all of `ids`; only what is new since the last call is computed, where the model can

How a model takes back what it keeps is tried when it is loaded: some compute several new ids behind it, some a single one
only (state-space models), some nothing at all. Then everything is computed anew for each token: slow, but right.
"""

import copy
import inspect
import threading
import time
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from persona_bot.engine.faults import told_in_one_sentence
from persona_bot.engine.gate import TOLERANCE, far_apart, precise, trial
from persona_bot.engine.likelihood import LikelihoodScorer, types_with
from persona_bot.engine.sampler import Sampler, guided
from persona_bot.prompt import Prompt

MAX_READINGS = 4  # states of recent replies that are kept
TICK = 0.05  # seconds between looks at whether it is somebody's turn
MANY = 1 << 20
CUTS = (20, 21, 22, 39, 47, 48)  # where the passes of a trial end
STATES = ("past_key_values", "cache_params", "state")  # what models call it

State = tuple[str, Any]  # its name among a model's inputs, and what it is


class SerialModel:
    """A transformers module and how it goes on."""

    def __init__(self, module: PreTrainedModel):
        self.module, self.device = module, module.device
        self.takes = set(inspect.signature(module.forward).parameters)
        self.at_a_time, self.with_positions = (
            0,
            False,
        )  # ids behind a state: 0 none, 1, or any number
        with precise(module):
            self.at_a_time, self.with_positions = self._try_out()

    def begin(self) -> "Reading":
        return Reading(self)

    @torch.inference_mode()
    def _try_out(self) -> tuple[int, bool]:
        ids, types = trial(self.module, CUTS[-1])
        plain = Reading(self)  # which keeps nothing yet
        expected = [plain.logits(ids[:end], types and types[:end]) for end in CUTS]
        for at_a_time in (MANY, 1):
            for with_positions in (True, False):
                self.at_a_time, self.with_positions = at_a_time, with_positions
                try:
                    reading = Reading(self)
                    found = [reading.logits(ids[:end], types and types[:end]) for end in CUTS]
                except Exception:  # its way of saying that it cannot
                    continue
                if (
                    far_apart(torch.stack(found), torch.stack(expected))
                    < TOLERANCE[self.module.dtype]
                ):
                    return at_a_time, with_positions
        return 0, False

    def step(
        self, ids: Sequence[int], types: Sequence[int] | None, start: int, state: State | None
    ) -> tuple[Tensor, State | None]:
        """(logits of the last id (vocabulary,) float32 on the CPU, the state) after ids that stand at `start` and behind."""
        inputs: dict[str, Any] = {"input_ids": torch.tensor([ids], device=self.device)}
        if types:
            inputs["token_type_ids"] = torch.tensor([types], device=self.device)
        if "logits_to_keep" in self.takes:
            inputs["logits_to_keep"] = 1  # the vocabulary is the widest layer
        if self.with_positions and "position_ids" in self.takes:
            inputs["position_ids"] = torch.arange(start, start + len(ids), device=self.device)[None]
        if state is not None:
            inputs[state[0]] = state[1]
        if "use_cache" in self.takes:
            inputs["use_cache"] = self.at_a_time > 0
        out = self.module(**inputs)
        states = [(name, getattr(out, name, None)) for name in STATES if name in self.takes]
        state = next((found for found in states if found[1] is not None), None)
        return out.logits[0, -1].float().cpu(), state


class Reading:
    """What a model has read of one conversation."""

    def __init__(self, model: SerialModel):
        self.model = model
        self.ids: list[int] = []  # whose state it holds
        self._state: State | None = None

    @torch.inference_mode()
    def copy(self) -> "Reading":
        new = Reading(self.model)
        new.ids, new._state = list(self.ids), copy.deepcopy(self._state)
        return new

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], types: Sequence[int] | None = None) -> Tensor:
        """After all of `ids` (with their token types), (vocabulary,) float32 on the CPU; they begin with what was read, or are read anew."""
        start = len(self.ids)
        if not start or start >= len(ids) or list(ids[:start]) != self.ids or not self._state:
            start, self._state = 0, None
        self.ids, state = [], self._state  # a pass that fails may leave the state half changed
        while start < len(ids):
            count = len(ids) - start if state is None else self.model.at_a_time
            part = slice(start, min(start + count, len(ids)))
            logits, state = self.model.step(ids[part], types and types[part], start, state)
            start = part.stop
        self.ids, self._state = (list(ids), state) if self.model.at_a_time else ([], None)
        return logits


class Place:
    """A place in the line for a SerialBackend. Who leaves only says so: closing a reply takes no lock."""

    left = False


class SerialBackend:
    """A transformers module, whatever its architecture and device, with whatever it keeps between tokens."""

    at_once = 2  # more would only slow each other down
    is_shared = False

    def __init__(self, model: PreTrainedModel):
        self.model, self.serial = model, SerialModel(model)
        self.scorer = LikelihoodScorer(model)
        self._readings: list[Reading] = []  # of recent replies, the newest last
        self._line: list[Place] = []
        self._lock = threading.Lock()

    def generate(
        self, prompt: Prompt, sampler: Sampler, keep: bool = True, nothing: Prompt | None = None
    ) -> Generator[int | None, None, None]:
        place = Place()
        with self._lock:
            self._line.append(place)
        try:
            while not self._is_served(place):
                yield None
                time.sleep(TICK)
            with told_in_one_sentence():
                yield from self._tokens(prompt, sampler, keep, nothing)
        finally:
            place.left = True

    def _is_served(self, place: Place) -> bool:
        with self._lock:
            self._line = [other for other in self._line if not other.left]
            return place in self._line[: self.at_once]

    def _tokens(
        self, prompt: Prompt, sampler: Sampler, keep: bool, nothing: Prompt | None
    ) -> Generator[int, None, None]:
        reading, guide = self._take(prompt.ids), self.serial.begin()
        ids: list[int] = []
        try:
            while not sampler.is_last(ids):
                logits = reading.logits(prompt.ids + ids, types_with(prompt, ids))
                sampler.penalize_afterthoughts(logits, ids)
                if nothing:
                    anyhow = guide.logits(nothing.ids + ids, types_with(nothing, ids))
                    logits = guided(logits, anyhow, sampler.settings.guidance_scale)
                ids.append(sampler.sample(logits, ids))
                yield ids[-1]
        finally:
            if keep:
                self._readings.append(reading)  # and takes no lock

    def _take(self, ids: list[int]) -> Reading:
        """A copy of the longest reading of a beginning of these ids: a state can be gone on with, but not cut."""
        with self._lock:
            del self._readings[:-MAX_READINGS]
            readings = list(self._readings)
        fitting = [r for r in readings if len(r.ids) < len(ids) and r.ids == ids[: len(r.ids)]]
        longest = max(fitting, key=lambda reading: len(reading.ids), default=None)
        return longest.copy() if longest else self.serial.begin()

    def prefill(self, prompt: Prompt) -> None:
        with told_in_one_sentence():
            reading = self._take(prompt.ids[:-1])
            reading.logits(prompt.ids[:-1], prompt.token_types and prompt.token_types[:-1])
        self._readings.append(reading)

    def score(self, prompt: Prompt, replies: Sequence[list[int]]) -> list[float]:
        with told_in_one_sentence(), self._lock:
            return self.scorer.score(prompt, replies).log_likelihoods

    def score_hiding(
        self, prompt: Prompt, reply: list[int], hidden: Sequence[tuple[int, int]]
    ) -> list[float]:
        """One prompt after the other, each without its stretch."""
        ids, types = prompt.ids, prompt.token_types
        prompts = [
            prompt._replace(ids=ids[:a] + ids[b:], token_types=types and types[:a] + types[b:])
            for a, b in [(0, 0), *hidden]
        ]
        return [self.score(one, [reply])[0] for one in prompts]

    def tidy(self) -> None:
        pass  # a few readings are all that it keeps

    def close(self) -> None:
        self._readings.clear()
