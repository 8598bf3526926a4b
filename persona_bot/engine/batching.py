"""Forward passes for several visitors at once: one pass gives every reply in the making its next token.

    thread of visitor 1: waits for its next token --.                                      .--> token
    thread of visitor 2: waits for its next token --+-- one of them leads a pass for all ---+--> token
    thread of visitor 3: shows its newest token                  and draws                 '--> token, when it comes

There is no thread of the engine's own that could die: whoever finds no token of its own leads a pass. Who is slow to
fetch its tokens holds up nobody, since the passes go on with its reply; who leaves is in no further pass.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

from persona_bot.device import is_out_of_memory
from persona_bot.engine.kv_cache import KeysValues
from persona_bot.engine.llama import FastLlama
from persona_bot.engine.sampler import Sampler
from persona_bot.errors import UserError

MOST_AT_ONCE = 32  # replies in a pass; a CPU gains nothing beyond
# ids in a pass: a long prompt takes several, in which the others get their tokens, too
MOST_NEW = 256


class Request:
    """A reply in the making: what its cache holds, what comes next, and the tokens drawn so far."""

    def __init__(
        self,
        prompt: Sequence[int],
        known: int,
        cache: KeysValues,
        sampler: Sampler,
        give_back: Callable | None = None,
    ):
        """`cache` holds the first `known` ids of the prompt; `give_back(ids, cache)` gets it after the reply, with all its ids."""
        self.known, self.new = list(prompt[:known]), list(prompt[known:])
        self.cache, self.sampler, self.give_back = cache, sampler, give_back
        self.reply: list[int] = []
        self.fetched = 0  # how many of them the visitor has
        self.error: Exception | None = None
        self.left = False  # the visitor has

    @property
    def goes_on(self) -> bool:
        return self.error is None and not self.left and not self.sampler.is_last(self.reply)

    def advance(self, count: int, logits) -> None:
        """After a pass over the first `count` new ids: draws the next token where that were all."""
        self.known += self.new[:count]
        self.new = self.new[count:]
        if not self.new:
            try:
                self.reply.append(self.sampler.pick(logits, self.reply))
                self.new = self.reply[-1:]
            except Exception as error:
                self.error = error


class Engine:
    """Shares a model's passes between threads."""

    def __init__(self, model: FastLlama):
        self.model = model
        self.passes = 0
        self.most_at_once = MOST_AT_ONCE
        # all whose cache is the engine's, those who left but did not move out among them
        self._members: list[Request] = []
        self._queue: list[Request] = []  # replies that go on, the next to be served first
        self._running: list[Request] = []  # those in the pass that runs now
        self._leading = False
        self._changed = threading.Condition()

    def tokens(self, request: Request) -> Iterator[int]:
        """The reply's tokens as they are drawn; raises what went wrong for this one. Closing it takes the reply out of the batch."""
        self.model.seats.take(
            request.cache,
            len(request.known) + len(request.new) + request.sampler.settings.max_tokens,
        )
        with self._changed:
            self._members.append(request)
            self._queue.append(request)
        try:
            while request.goes_on or has_news(request):
                yield self._next(request)
        finally:
            # Nothing else, and nothing that could wait: the garbage collector may be who closes
            # this, in any thread that
            # happens to make an object, whatever locks that thread holds. (A pass draws, and needs
            # the tokenizer's.)
            request.left = True

    def settle(self) -> None:
        """Lets those who left move out, after the pass that they may be in. Whoever needs a seat or a cache calls it before."""
        with self._changed:
            self._changed.wait_for(lambda: not any(request.left for request in self._running))
            gone = [request for request in self._members if request.left]
            self._members = [request for request in self._members if request not in gone]
            self._queue = [request for request in self._queue if request not in gone]
        for request in gone:
            self.model.seats.leave(request.cache)
            if request.give_back:
                request.give_back(request.known, request.cache)

    def _next(self, request: Request) -> int:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: has_news(request) or not self._leading)
                if has_news(request):
                    break
                self._leading = True
                batch = self._gather()
            try:
                self._run(batch)
            finally:
                with self._changed:
                    served = [r for r, _ in batch if r.goes_on]
                    # longer prompts go on in the next pass
                    reading = [r for r in served if len(r.new) > 1]
                    self._queue = reading + self._queue + [r for r in served if len(r.new) == 1]
                    self._running = []
                    self._leading = False
                    self._changed.notify_all()
        if request.fetched == len(request.reply):
            raise request.error
        request.fetched += 1
        return request.reply[request.fetched - 1]

    def _gather(self) -> list[tuple[Request, int]]:
        """Who is served in this pass, and how many ids of each; takes them off the queue.

        One id for everyone first; prompts share the rest of the room in the order in which they came."""
        waiting = [request for request in self._queue if not request.left]
        candidates, batch = waiting[: self.most_at_once], []
        room = MOST_NEW - len(candidates)
        for request in candidates:
            count = min(1 + room, len(request.new))
            room -= count - 1
            batch.append((request, count))
        self._queue = waiting[len(candidates) :]
        self._running = candidates
        return batch

    def _run(self, batch: list[tuple[Request, int]]) -> None:
        """One pass. Where it fails, half the batch at a time is tried, so that one who cannot be served costs no other."""
        try:
            logits = self.model.forward(
                [(request.new[:count], request.cache) for request, count in batch]
            )
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
            request.advance(count, row)


def has_news(request: Request) -> bool:
    return request.fetched < len(request.reply) or request.error is not None


def as_user_error(error: Exception) -> UserError:
    """One sentence for the visitor."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return UserError(
            "The device ran out of memory during the reply; start a new chat or shorten the persona."
        )
    return UserError("The model failed during the reply; send the message again.")
