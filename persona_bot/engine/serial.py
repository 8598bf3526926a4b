"""One conversation at a time through a transformers model with whatever it keeps between tokens: keys and values, sliding
windows, convolutions, states, or nothing.

    reading = SerialModel(module).begin()
    reading.logits(ids)           after all of `ids`; only what is new since the last call is computed, where the model can

How a model takes back what it keeps is tried when it is loaded: some compute several new ids behind it, some a single one
only (state-space models), some nothing at all. Then everything is computed anew for each token: slow, but right.
"""

import copy
import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from persona_bot.engine.gate import TOLERANCE, far_apart, precise, trial

MANY = 1 << 20
CUTS = (20, 21, 22, 39, 47, 48)  # where the passes of a trial end
STATES = ("past_key_values", "cache_params", "state")  # what models call it


class SerialModel:
    """A transformers module and how it goes on."""

    def __init__(self, module: nn.Module):
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

    def step(self, ids: Sequence[int], types: Sequence[int] | None, start: int, state) -> tuple:
        """(logits of the last id (vocabulary,) float32 on the CPU, the state) after ids that stand at `start` and behind."""
        inputs = {"input_ids": torch.tensor([ids], device=self.device)}
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
        kept = [(name, getattr(out, name, None)) for name in STATES if name in self.takes]
        state = next((found for found in kept if found[1] is not None), None)
        return out.logits[0, -1].float().cpu(), state


class Reading:
    """What a model has read of one conversation."""

    def __init__(self, model: SerialModel):
        self.model = model
        self.ids: list[int] = []  # whose state it holds
        self._state = None

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
