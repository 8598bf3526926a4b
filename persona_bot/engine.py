"""Forward passes for several visitors at once: whoever needs the next logits asks, and all who ask share one pass.

Run: nothing by itself; generation.py asks it for every token, `python -m benchmarks.chat` measures it.

    thread of visitor 1: sample, ask --.                       .--> logits
    thread of visitor 2: sample, ask ---+-- one of them leads --+--> logits
    thread of visitor 3: sample, ask --'    the pass for all    '--> logits

There is no thread of the engine's own that could die: the first to ask leads a pass for those who wait, then the next
does. Who stops asking is out of the batch at once.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager

import torch

from persona_bot.device import is_out_of_memory
from persona_bot.errors import UserError
from persona_bot.llama import FastLlama, KeysValues

MOST_AT_ONCE = 32  # conversations in a pass; a CPU gains nothing beyond
MOST_NEW = 256  # ids in a pass: a long prompt takes several, between which the others get their tokens
PATIENCE = 0.04  # seconds after its logits in which a reply is expected to ask again, so that the next pass waits for it


class Request:
    """New ids behind what a conversation's cache holds, and what became of them."""

    def __init__(self, ids: Sequence[int], cache: KeysValues):
        self.ids, self.cache = list(ids), cache
        self.logits: torch.Tensor | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.logits is not None or self.error is not None


class Engine:
    """Shares a model's passes between threads."""

    def __init__(self, model: FastLlama):
        self.model = model
        self.passes = 0
        self.most_at_once = MOST_AT_ONCE
        self._expected: dict[int, float] = {}  # replies in the making, by their cache: until when a pass waits for them
        self._waiting: list[Request] = []
        self._leading = False
        self._changed = threading.Condition()

    @contextmanager
    def writing(self, cache: KeysValues):
        """A reply in the making: the next pass waits a moment for it, so that several replies keep step."""
        with self._changed:
            self._expected[id(cache)] = 0.0
        try:
            yield
        finally:
            with self._changed:
                del self._expected[id(cache)]
                self._changed.notify_all()

    def forward(self, ids: Sequence[int], cache: KeysValues) -> torch.Tensor:
        """Logits (vocabulary,) float32 after `ids`, which the cache then holds too; raises what the pass raised for them."""
        request = Request(ids, cache)
        with self._changed:
            self._waiting.append(request)
            self._expect(request, 0.0)
            self._changed.notify_all()
        while not request.done:
            with self._changed:
                while self._leading and not request.done:
                    self._changed.wait()
                if request.done:
                    break
                self._leading = True
                batch = self._gather()
            try:
                self._run(batch)
            finally:
                with self._changed:
                    for served, _ in batch:
                        self._expect(served, time.monotonic() + PATIENCE if served.done else 0.0)
                    self._waiting[:0] = [r for r, _ in batch if not r.done]  # longer prompts go on in the next pass
                    self._leading = False
                    self._changed.notify_all()
        if request.error is not None:
            raise request.error
        return request.logits

    def _gather(self) -> list[tuple[Request, int]]:
        """Who waits, and for how many ids there is room in this pass; takes them off the queue."""
        while len(self._waiting) < self.most_at_once and (left := max(self._expected.values(), default=0.0) - time.monotonic()) > 0:
            self._changed.wait(left)
        batch, room = [], MOST_NEW
        for request in self._waiting[: self.most_at_once]:
            if room:
                batch.append((request, min(room, len(request.ids))))
                room -= batch[-1][1]
        del self._waiting[: len(batch)]
        return batch

    def _expect(self, request: Request, until: float) -> None:
        if id(request.cache) in self._expected:  # a caller without `writing` may never ask again
            self._expected[id(request.cache)] = until

    def _run(self, batch: list[tuple[Request, int]]) -> None:
        """One pass. Where it fails, half the batch at a time is tried, so that one who cannot be served costs no other."""
        try:
            logits = self.model.forward([(request.ids[:count], request.cache) for request, count in batch])
            self.passes += 1
        except Exception as error:
            if len(batch) == 1:
                batch[0][0].error = error
                return
            if is_out_of_memory(error):
                self.most_at_once = max(1, len(batch) // 2)
            self._run(batch[: len(batch) // 2])
            self._run(batch[len(batch) // 2 :])
            return
        for (request, count), row in zip(batch, logits, strict=True):
            request.ids = request.ids[count:]
            request.logits = None if request.ids else row


def as_user_error(error: Exception) -> UserError:
    """One sentence for the visitor."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return UserError("The device ran out of memory during the reply; start a new chat or shorten the persona.")
    return UserError("The model failed during the reply; send the message again.")
