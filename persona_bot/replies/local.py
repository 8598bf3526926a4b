"""A model on this machine: from a persona and turns to ids, through a backend, and back to a growing text."""

import copy
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch

from persona_bot.checkpoints.files import load_tensors
from persona_bot.checkpoints.load import (
    Checkpoint,
    explained,
    find_checkpoint,
    load_module,
    max_positions,
)
from persona_bot.checkpoints.prepared import prepare_apart
from persona_bot.device import give_memory_back, use_half_the_cores
from persona_bot.engine.backend import Backend, backend_for, fast_llama_backend
from persona_bot.engine.sampler import Sampler
from persona_bot.errors import UserError
from persona_bot.layouts import Layout
from persona_bot.persona import Persona
from persona_bot.prompt import (
    Prompt,
    build_prompt,
    first_that_may_fit,
    reply_ids,
    unconditional_prompt,
)
from persona_bot.replies.best_of import write_best
from persona_bot.replies.reply import Pieces, Reply, ends_a_sentence
from persona_bot.replies.visible_text import VisibleText
from persona_bot.settings import Settings
from persona_bot.text import asks, settled


@dataclass(frozen=True)
class LocalModel:
    """A checkpoint that answers on this machine; the contract is reply.Model's."""

    name: str
    layout: Layout
    device: torch.device
    context_length: int  # prompt and reply together, in tokens
    backend: Backend

    @classmethod
    def load(cls, name: str | None = None, device: str | None = None) -> "LocalModel":
        """The checkpoint as it answers fastest; raises UserError for anything that is not a usable one."""
        # fbgemm packs weights into blocks with gaps, which cost nothing in pages of their own: 18 MB
        give_memory_back(512 << 10)
        source = find_checkpoint(name, device)
        backend: Backend
        is_cpu = source.device.type == "cpu"
        if is_cpu:
            use_half_the_cores()
        with explained(source.folder):
            if source.weights != source.folder:
                prepare_apart(source.folder, source.base, source.weights)
            if is_cpu and (plain := load_tensors(source.weights, source.dtype)):
                config, tensors = plain
                limit = max_positions(config)
                backend = fast_llama_backend(config, tensors, limit)
            else:
                module = load_module(source)
                limit = max_positions(module.config)
                backend = backend_for(module, limit)
        give_memory_back()
        return cls(source.name, source.layout, source.device, limit, backend)

    @classmethod
    def served(cls, checkpoint: Checkpoint) -> "LocalModel":
        """A loaded checkpoint as it answers fastest, which changes a copy of its module only."""
        backend = backend_for(copy.deepcopy(checkpoint.model), checkpoint.max_positions)
        return cls.with_backend(checkpoint, backend)

    @classmethod
    def plain(cls, checkpoint: Checkpoint) -> "LocalModel":
        """A loaded checkpoint as transformers runs it, for comparison."""
        from persona_bot.engine.serial import SerialBackend

        return cls.with_backend(checkpoint, SerialBackend(checkpoint.model))

    @classmethod
    def with_backend(cls, checkpoint: Checkpoint, backend: Backend) -> "LocalModel":
        limit = checkpoint.max_positions
        return cls(checkpoint.name, checkpoint.layout, checkpoint.device, limit, backend)

    @property
    def device_label(self) -> str:
        return "CPU" if self.device.type == "cpu" else "GPU"

    @property
    def problem(self) -> None:
        return None

    @property
    def at_once(self) -> int:
        return self.backend.at_once

    def reply(
        self,
        persona: Persona,
        turns: Sequence[str],
        settings: Settings | None = None,
        stop: threading.Event | None = None,
    ) -> Reply:
        settings, stop = settings or Settings(), stop or threading.Event()
        max_prompt_tokens = self.context_length - settings.max_tokens
        prompt = build_prompt(self.layout, persona, turns, max_prompt_tokens)
        # a question that comes again is answered as before, and else "in a cabin" would become "in a cave"
        earlier = [] if asks(turns[-1]) else turns[1::2]
        history = [
            i for turn in earlier for i in [*self.layout.encode(f" {turn}"), self.layout.end_id]
        ]
        write = partial(write_best, self) if settings.best_of > 1 else self.write
        pieces = partial(write, prompt, settings, stop, history, persona)
        return Reply(pieces, len(prompt.ids), prompt.dropped)

    def write(
        self,
        prompt: Prompt,
        settings: Settings,
        stop: threading.Event,
        history: list[int],
        persona: Persona,
        reply: Reply,
        keep: bool = True,
    ) -> Iterator[str]:
        """The pieces of one reply; `history`: ids of the persona's earlier replies, each with its end token, for what may not be repeated."""
        sampler = Sampler(self.layout, settings, history, persona.sentences)
        pieces, ids, started = Pieces(), [], time.monotonic()
        shown = VisibleText()
        reason, rest = "length", ""
        nothing = None
        if settings.guidance_scale != 1:
            nothing = unconditional_prompt(self.layout, self.context_length - settings.max_tokens)
        with closing(self.backend.generate(prompt, sampler, keep, nothing)) as tokens:
            for token in tokens:
                if stop.is_set():
                    reason = "cancelled"
                    break
                if token is None:  # others come first: the clock starts with its turn
                    yield ""
                    started = time.monotonic()
                    continue
                reply.seconds = time.monotonic() - started
                if reply.seconds > settings.deadline or token in self.layout.stop_ids:
                    reason = "stop" if token in self.layout.stop_ids else "deadline"
                    break
                ids.append(token)
                reply.num_tokens = len(ids)
                if piece := shown.add(pieces.up_to(self.layout.decode_settled(ids))):
                    yield piece
                enough = reply.is_long_enough(settings) and not shown.inside
                if enough and ends_a_sentence(self._whole(ids)):
                    break
            else:
                rest = "…"
        reply.finish_reason = reason
        if piece := shown.add(pieces.up_to(self._whole(ids) + rest)) + shown.end():
            yield piece
        if shown.thought and not reply.text and reason != "cancelled":
            raise UserError(
                "The model only thought and came to no answer; choose one that does not think."
            )

    def _whole(self, ids: Sequence[int]) -> str:
        return settled(self.layout.decode(ids))

    def score(self, persona: Persona, turns: Sequence[str], replies: Sequence[str]) -> list[float]:
        candidates = [reply_ids(self.layout, text) for text in replies]
        max_prompt_tokens = self.context_length - max(map(len, candidates), default=0)
        return self.backend.score(
            build_prompt(self.layout, persona, turns, max_prompt_tokens), candidates
        )

    def gains(self, prompt: Prompt, replies: Sequence[str]) -> list[float]:
        """By how much the prompt makes each reply likelier than it is anyhow, in nats."""
        candidates = [reply_ids(self.layout, text) for text in replies]
        anyhow = unconditional_prompt(self.layout, self.context_length)
        behind, alone = (self.backend.score(p, candidates) for p in (prompt, anyhow))
        return [a - b for a, b in zip(behind, alone, strict=True)]

    def context_usage(
        self, persona: Persona, turns: Sequence[str], settings: Settings | None = None
    ) -> tuple[int, int]:
        max_prompt_tokens = self.context_length - (settings or Settings()).max_tokens
        fitting = turns[first_that_may_fit(self.layout, turns, max_prompt_tokens) :]
        if len(fitting) < len(turns):
            return max_prompt_tokens, max_prompt_tokens
        parts = self.layout.segments(persona, fitting, add_generation_prompt=False)
        return sum(len(part.ids) for part in parts), max_prompt_tokens

    def tidy(self) -> None:
        self.backend.tidy()

    def close(self) -> None:
        self.backend.close()
