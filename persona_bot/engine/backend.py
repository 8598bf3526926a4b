"""Ids in, ids out: the one interface behind which every model of this machine stands, and what implements it.

    BatchedBackend   passes shared by all visitors (batching.py), over a model with forward(parts), forward_branches, new_cache
    SerialBackend    a transformers module as it is, two replies at a time, with whatever it keeps between tokens (serial.py)

A backend knows neither texts nor layouts.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from persona_bot.engine.batching import Engine
from persona_bot.engine.faults import told_in_one_sentence
from persona_bot.engine.int8_linear import has_fast_int8
from persona_bot.engine.llama import FastLlama, can_run
from persona_bot.engine.passes import Part
from persona_bot.engine.prefix_cache import GPU_BYTES, MAX_BYTES, PrefixCache
from persona_bot.engine.request import Request
from persona_bot.engine.sampler import Sampler
from persona_bot.prompt import Prompt

if TYPE_CHECKING:  # else a plain Llama's start would wait for transformers' model classes: 2 s
    from transformers import PreTrainedModel

    from persona_bot.engine.shared_model import SharedModel

KV_BYTES = 192 << 20  # on a CPU, of what is being written and what is kept between turns together
UNUSED_SECONDS = 300.0  # until a conversation that does not go on is read anew
MAX_SCORED = 128  # ids whose logits are held at once: 25 MB of a vocabulary of 49,152


class Backend(Protocol):
    """A model's passes. Raises UserError with one sentence, whatever fails."""

    @property
    def at_once(self) -> int:
        """Replies that are worth writing at the same time."""

    @property
    def is_shared(self) -> bool:
        """Whether visitors share passes; else they come one after the other."""

    def generate(
        self, prompt: Prompt, sampler: Sampler, keep: bool = True, nothing: Prompt | None = None
    ) -> Generator[int | None, None, None]:
        """The tokens as they are drawn, the end token too; None while others come first.

        `nothing`: the prompt behind which a reply is as likely as it is anyhow, for a sampler that is guided.
        What was read and written is kept for the next turn unless `keep` is False. Closing it never waits for anything:
        the garbage collector may do it, in any thread, whatever locks that thread holds.
        """

    def prefill(self, prompt: Prompt) -> None:
        """Reads the prompt, so that `generate` and `score` behind it have only its last id to read."""

    def score(self, prompt: Prompt, replies: Sequence[list[int]]) -> list[float]:
        """Log likelihood of each reply behind the prompt; replies end with their end token."""

    def score_hiding(
        self, prompt: Prompt, reply: list[int], hidden: Sequence[tuple[int, int]]
    ) -> list[float]:
        """Log likelihood of a reply behind the prompt, then behind it with each of these stretches (from, until) out of sight."""

    def tidy(self) -> None:
        """Gives back what finished replies still hold, and what is kept of conversations that do not go on."""

    def close(self) -> None:
        """Gives back what the backend holds beside memory."""


class Reader:
    """In a sampler's place where a prompt is read and nothing is written: one token, any."""

    settings = SimpleNamespace(max_tokens=1)

    def sample(self, logits: torch.Tensor, ids: list[int]) -> int:
        return 0

    def is_last(self, ids: Sequence[int]) -> bool:
        return bool(ids)


class BatchedBackend:
    """A model whose passes visitors share."""

    is_shared = True

    def __init__(self, model: "FastLlama | SharedModel"):
        on_gpu = model.slots.kv.device.type != "cpu"
        self.at_once = len(model.slots.kv) if on_gpu else 16
        self.model = model
        if on_gpu:
            self.prefixes = PrefixCache(GPU_BYTES)
        else:
            self.prefixes = PrefixCache(
                MAX_BYTES, lambda: KV_BYTES - self.model.slots.bytes_written
            )
        self.engine = Engine(model, 256, 2048) if on_gpu else Engine(model)
        self._scoring = threading.Lock()  # one visitor's drafts at a time, for the memory they take

    def generate(
        self,
        prompt: Prompt,
        sampler: Sampler | Reader,
        keep: bool = True,
        nothing: Prompt | None = None,
    ) -> Generator[int | None, None, None]:
        with told_in_one_sentence():
            guide = None
            if nothing:
                guide = self._request(nothing, sampler)
                if len(guide.new) > 1:  # once, for all replies to come
                    self.prefill(nothing)
                    guide = self._request(nothing, sampler)
            self.engine.reap_finished()  # so that the turn before has given back what it read
            give_back = self.prefixes.give_back if keep else None
            yield from self.engine.tokens(self._request(prompt, sampler, give_back, guide))

    def _request(
        self,
        prompt: Prompt,
        sampler: Sampler | Reader,
        give_back: Callable | None = None,
        guide: Request | None = None,
    ) -> Request:
        """A reply to the prompt, behind what is known of it."""
        cache, num_cached = self.prefixes.take(prompt.ids, self.model.new_cache)
        ids, types = prompt.ids, prompt.token_types
        return Request(ids, num_cached, cache, sampler, give_back, types, guide)

    def prefill(self, prompt: Prompt) -> None:
        for _ in self.generate(prompt, Reader()):
            pass
        self.engine.reap_finished()

    @torch.inference_mode()
    def score(self, prompt: Prompt, replies: Sequence[list[int]]) -> list[float]:
        """The prompt, then the candidates as branches behind it, as many in a pass as memory is meant for."""
        with told_in_one_sentence(), self._scoring:
            self.engine.reap_finished()
            cache, num_cached = self.prefixes.take(prompt.ids, self.model.new_cache)
            types = prompt.token_types
            logits = self.model.forward(
                [Part(prompt.ids[num_cached:], cache, types and types[num_cached:])]
            )
            first = logits.log_softmax(-1)[0]  # predicts every reply's first id
            sums = [first[reply[:1]].sum() for reply in replies]
            for group in groups([len(reply) - 1 for reply in replies], MAX_SCORED):
                branches = [replies[k][:-1] for k in group]
                logits = self.model.forward_branches(branches, cache, types[-1] if types else None)
                targets = [i for k in group for i in replies[k][1:]]
                values = logits[range(len(targets)), targets] - logits.logsumexp(-1)
                parts = values.split([len(branch) for branch in branches])
                for k, part in zip(group, parts, strict=True):
                    sums[k] = sums[k] + part.sum()
            self.prefixes.give_back(prompt.ids, cache)
            return torch.stack(sums).tolist() if sums else []

    @torch.inference_mode()
    def score_hiding(
        self, prompt: Prompt, reply: list[int], hidden: Sequence[tuple[int, int]]
    ) -> list[float]:
        """Branches of one pass, behind what the reply's own prompt left in the cache."""
        with told_in_one_sentence():
            self.engine.reap_finished()
            cache, num_cached = self.prefixes.take(prompt.ids, self.model.new_cache)
            types, last = prompt.token_types, len(prompt.ids) - 1
            if num_cached < last:
                part = Part(prompt.ids[num_cached:last], cache, types and types[num_cached:last])
                self.model.forward([part])
            # the prompt's last id stands in each branch, so that it does not see the stretch either
            branches = [[prompt.ids[last], *reply[:-1]]] * (len(hidden) + 1)
            logits = self.model.forward_branches(
                branches, cache, types[-1] if types else None, [(0, 0), *hidden]
            )
            self.prefixes.give_back(prompt.ids[:last], cache)
            values = logits.unflatten(0, (len(branches), len(reply))).log_softmax(-1)
            return values[:, range(len(reply)), reply].sum(-1).tolist()

    def tidy(self) -> None:
        self.engine.reap_finished()
        self.prefixes.drop_unused(UNUSED_SECONDS)

    def close(self) -> None:
        self.prefixes.clear()


def groups(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """The numbers of what is not empty, in order, in groups of up to `most` altogether; what is larger comes alone."""
    group: list[int] = []
    for k, size in enumerate(sizes):
        if group and sum(sizes[j] for j in group) + size > most:
            yield group
            group = []
        if size:
            group.append(k)
    if group:
        yield group


def backend_for(model: "PreTrainedModel", max_positions: int) -> Backend:
    """The backend that answers fastest for a transformers module on its device."""
    from persona_bot.engine.gate import share
    from persona_bot.engine.serial import SerialBackend

    on_cpu = model.device.type == "cpu"
    if on_cpu and can_run(model.config):
        return fast_llama_backend(model.config, model.state_dict(), max_positions)
    shared = share(model, max_positions, int8=on_cpu and has_fast_int8())
    return BatchedBackend(shared) if shared else SerialBackend(model)


def fast_llama_backend(
    config: Any, tensors: Mapping[str, torch.Tensor], max_positions: int
) -> BatchedBackend:
    """A plain Llama's weights on a CPU, in int8 where the CPU multiplies that fast."""
    return BatchedBackend(FastLlama(config, tensors, max_positions, has_fast_int8()))
