"""Forward passes for several visitors at once: one pass gives every reply in the making its next token.

    thread of visitor 1: waits for its next token --.                                      .--> token
    thread of visitor 2: waits for its next token --+-- one of them leads a pass for all ---+--> token
    thread of visitor 3: shows its newest token                  and draws                 '--> token, when it comes

There is no thread of the engine's own that could die: whoever finds no token of its own leads a pass. Who is slow to
fetch its tokens holds up nobody, since the passes go on with its reply; who leaves is in no further pass.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from persona_bot.device import is_out_of_memory
from persona_bot.engine.device_sampler import draw
from persona_bot.engine.prefix_cache import WORTH, common_length
from persona_bot.engine.request import Request
from persona_bot.engine.sampler import Sampler, guided

if TYPE_CHECKING:
    from persona_bot.engine.llama import FastLlama
    from persona_bot.engine.shared_model import SharedModel

MAX_BATCH = 32  # replies in a pass of a CPU, which gains nothing beyond
MAX_BATCH_TOKENS = 256  # of a pass: a long prompt takes several, in which the others get theirs
RECOVERY = 60.0  # seconds after the memory ran out until twice as many replies are tried again


class Engine:
    """Shares a model's passes between threads."""

    def __init__(
        self,
        model: "FastLlama | SharedModel",
        max_batch: int = MAX_BATCH,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ):
        self.model = model
        self.max_batch, self.max_batch_tokens = max_batch, max_batch_tokens
        self.passes = 0
        self.batch_limit = max_batch  # lower for a while after the memory ran out
        self._limited_at = 0.0
        # all whose cache is the engine's, those who left but did not move out among them
        self._members: list[Request] = []
        self._queue: list[Request] = []  # replies that go on, the next to be served first
        self._running: list[Request] = []  # those in the pass that runs now
        self._leader: Request | None = None  # whose thread runs the pass
        self._changed = threading.Condition()

    def tokens(self, request: Request) -> Iterator[int]:
        """The reply's tokens as they are drawn; raises what went wrong for this one. Closing it takes the reply out of the batch."""
        for each in filter(None, (request, request.guide)):
            longest = len(each.cached) + len(each.new) + request.sampler.settings.max_tokens
            self.model.slots.allocate(each.cache, longest)
        with self._changed:
            self._members.append(request)
            self._queue.append(request)
        try:
            while request.goes_on or request.has_news:
                yield self._next(request)
        finally:
            # Nothing else, and nothing that could wait: the garbage collector may be who closes
            # this, in any thread that happens to make an object, whatever locks that thread holds.
            # (A pass draws, and needs the tokenizer's.)
            request.left = True

    def reap_finished(self) -> None:
        """Lets those who left move out, after the pass that they may be in. Whoever needs a slot or a cache calls it before."""
        with self._changed:
            self._changed.wait_for(lambda: not any(request.left for request in self._running))
            gone = [request for request in self._members if request.left]
            self._members = [request for request in self._members if request not in gone]
            self._queue = [request for request in self._queue if request not in gone]
        for request in gone:
            self.model.slots.release(request.cache)
            if request.guide:
                self.model.slots.release(request.guide.cache)
            if request.give_back:
                request.give_back(request.cached, request.cache)

    def _next(self, request: Request) -> int:
        while not request.has_news:
            batch: list[tuple[Request, int]] = []
            try:  # whatever interrupts it, Ctrl-C among it, the next leader finds everything in order
                with self._changed:
                    self._changed.wait_for(lambda: request.has_news or not self._leader)
                    if not request.has_news:
                        self._leader = request
                        batch = self._schedule()
                if batch:
                    self._run(batch)
            finally:
                if self._leader is request:
                    self._end_pass()
        if request.error is not None and request.num_fetched == len(request.reply):
            raise request.error
        request.num_fetched += 1
        return request.reply[request.num_fetched - 1]

    def _end_pass(self) -> None:
        with self._changed:
            served = [r for r in self._running if r.goes_on]
            rest = [r for r in self._queue if r not in served]
            # longer prompts go on in the next pass
            reading = [r for r in served if len(r.new) > 1]
            self._queue = reading + rest + [r for r in served if len(r.new) == 1]
            self._running, self._leader = [], None
            self._changed.notify_all()

    def _schedule(self) -> list[tuple[Request, int]]:
        """Who is served in this pass, and how many ids of each; takes them off the queue.

        One id for everyone first; prompts share the rest of the tokens in the order in which they came."""
        self._recover()
        waiting = [request for request in self._queue if not request.left]
        running = share_beginnings(waiting[: self.batch_limit])
        running += waiting[self.batch_limit :][: self.batch_limit - len(running)]
        batch: list[tuple[Request, int]] = []
        tokens_left = self.max_batch_tokens - len(running)
        for request in running:
            count = max(1, min(1 + tokens_left, len(request.new)))
            tokens_left -= count - 1
            batch.append((request, count))
        self._running = running
        self._queue = [request for request in waiting if request not in running]
        return batch

    def _recover(self) -> None:
        """Twice as many replies at once as before, a while after the memory ran out."""
        if self.batch_limit < self.max_batch and time.monotonic() - self._limited_at > RECOVERY:
            self.batch_limit = min(self.max_batch, 2 * self.batch_limit)
            self._limited_at = time.monotonic()

    def _run(self, batch: list[tuple[Request, int]]) -> None:
        """One pass. Where it fails, half the batch at a time is tried, so that one who cannot be served costs no other."""
        with_guide = [
            (k, r, r.guide) for k, (r, count) in enumerate(batch) if r.guide and r.draws(count)
        ]
        parts = [request.part(count) for request, count in batch]
        parts += [guide.part(len(guide.new)) for _, _, guide in with_guide]
        try:
            logits = self.model.forward(parts)
            self.passes += 1
        except Exception as error:
            if len(batch) == 1:
                batch[0][0].error = error
                return
            if is_out_of_memory(error):
                self.batch_limit, self._limited_at = max(1, len(batch) // 2), time.monotonic()
            self._run(batch[: len(batch) // 2])
            self._run(batch[len(batch) // 2 :])
            return
        for row, (request, count) in enumerate(batch):
            if request.draws(count) and isinstance(request.sampler, Sampler):
                request.sampler.penalize_afterthoughts(logits[row], request.reply)
        if with_guide:
            scales = [request.sampler.settings.guidance_scale for _, request, _ in with_guide]
            rows = [row for row, _, _ in with_guide]
            with torch.inference_mode():  # as the logits were made
                column = torch.tensor(scales, device=logits.device)[:, None]
                logits[rows] = guided(logits[rows], logits[len(batch) :], column)
            for _, _, guide in with_guide:
                guide.advance(len(guide.new))
        rows = [row for row, (request, count) in enumerate(batch) if request.advance(count)]
        drawing = [batch[row][0] for row in rows]
        for request, token in zip(drawing, sample_all(logits, rows, drawing), strict=True):
            request.add(token)


def share_beginnings(waiting: list[Request]) -> list[Request]:
    """Who is to be served now: sixteen visitors of one persona have it read once.

    A prompt takes over what another one that begins alike has read, and waits for what an earlier one is about to read."""
    now: list[Request] = []
    for number, request in enumerate(waiting):
        if len(request.new) > WORTH:
            others = waiting[:number] + [o for o in waiting[number:] if len(o.new) == 1]
            ids = request.cached + request.new[:-1]
            alike = [common_length(other.cached + other.new, ids) for other in others]
            until = max(alike, default=0)
            other = others[alike.index(until)] if others else request
            if (read := min(until, len(other.cached))) >= len(request.cached) + WORTH:
                with suppress(Exception):  # for lack of memory, say: then it reads by itself
                    request.take_over(other, read)
            if until >= len(request.cached) + WORTH and len(other.new) > 1:
                continue
        now.append(request)
    return now


def sample_all(logits: Tensor, rows: list[int], requests: list[Request]) -> list[int | Exception]:
    """The next token of each request from its row of the logits, or why there is none."""
    samplers = [r.sampler for r in requests if isinstance(r.sampler, Sampler)]
    if rows and logits.device.type != "cpu" and len(samplers) == len(requests):
        with suppress(Exception):  # one that fails costs no other
            return draw(logits[rows], samplers, [r.reply for r in requests])
    return [sample(r, logits[row].cpu()) for r, row in zip(requests, rows, strict=True)]


def sample(request: Request, logits: Tensor) -> int | Exception:
    try:
        return request.sampler.sample(logits, request.reply)
    except Exception as error:
        return error
