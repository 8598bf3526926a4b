"""THE path from a conversation to a reply: a stream of text pieces that the page, the API, the terminal and the scores loop over.

    reply = stream_reply(checkpoint, persona, ["where do you work?"], Settings(seed=1))
    for piece in reply:
        print(piece, end="", flush=True)

One forward pass a token in the caller's own thread, or one that it shares with other visitors (engine.py): a stop is seen at
the next token, and an error surfaces where the loop is. Pieces joined are the reply, exactly.
"""

import inspect
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from transformers.cache_utils import DynamicCache

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.batching import Request, as_user_error
from persona_bot.engine.prefix_cache import Cache
from persona_bot.engine.sampler import FINISH_WITHIN, Sampler
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.prompt import Prompt, build_prompt, first_that_may_fit

LIMITS = {  # field: (lowest, highest), both allowed
    "temperature": (0.0, 2.0),
    "top_p": (0.05, 1.0),
    "top_k": (0, 1000),
    "min_tokens": (0, 60),
    "max_tokens": (4, 200),
    "repetition_penalty": (1.0, 2.0),
    "no_repeat_ngram": (0, 10),
    "best_of": (1, 8),
    "seed": (0, 2**32 - 1),
    "deadline": (0.0, 600.0),
}
SENTENCE_END = re.compile(r"[.!?…][\"')\]]*$")


@dataclass(frozen=True)
class Settings:
    """How a reply is sampled. Raises UserError for a value out of range."""

    temperature: float = 0.7  # 0 always takes the likeliest token
    top_p: float = 0.9
    top_k: int = 0  # 0: off
    min_tokens: int = 6  # no end before
    max_tokens: int = 60
    repetition_penalty: float = 1.1  # on the words of this reply only
    # no run of so many tokens twice, in this reply or from an earlier one; 0: off
    no_repeat_ngram: int = 3
    best_of: int = 1  # replies to choose from (best_of.py); with more than one nothing streams
    seed: int | None = None
    deadline: float = 60.0  # seconds, then the reply ends with what it has

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "seed" and value is None:
                continue
            low, high = LIMITS[field.name]
            whole = field.name not in ("temperature", "top_p", "repetition_penalty", "deadline")
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not low <= value <= high or (whole and value != int(value)):
                kind = "a whole number" if whole else "a number"
                raise UserError(
                    f"The setting {field.name} must be {kind} from {low} to {high}; it is {str(value)[:40]!r}."
                )
            object.__setattr__(self, field.name, int(value) if whole else float(value))
        if self.min_tokens >= self.max_tokens:
            raise UserError(
                f"The shortest reply ({self.min_tokens} tokens) must be below the longest ({self.max_tokens}); change one."
            )


class ReplyStream:
    """A reply in the making; iterate it for its pieces. Its counters are true at every moment."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        prompt: Prompt,
        settings: Settings,
        stop: threading.Event,
        earlier: list[int],
    ):
        self.text = ""
        self.tokens = 0
        self.seconds = 0.0
        self.first_text_seconds: float | None = None
        self.finish: str | None = None  # "end", "length", "stop" or "deadline"
        self.prompt_tokens = len(prompt.ids)
        self.dropped_turns = prompt.dropped
        self._pieces = self._run(checkpoint, prompt, settings, stop, earlier)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """Ends the reply at once; what was generated stays in `text`."""
        self._pieces.close()

    def _run(self, checkpoint, prompt, settings, stop, earlier) -> Iterator[str]:
        started = time.monotonic()
        sampler = Sampler(checkpoint.layout, settings, earlier)
        ids: list[int] = []
        for token in next_tokens(checkpoint, prompt, sampler):
            self.seconds = time.monotonic() - started
            self.finish = self._finish(token, checkpoint, settings, stop)
            if self.finish:
                return
            ids.append(token)
            self.tokens = len(ids)
            piece = self._new_text(checkpoint, ids)
            if piece:
                self.first_text_seconds = self.first_text_seconds or self.seconds
                yield piece
            if self.tokens > max(
                settings.max_tokens - FINISH_WITHIN, settings.min_tokens
            ) and SENTENCE_END.search(self.text):
                self.finish = "length"
                return
        self.finish = "length"
        self.text += "…"
        yield "…"

    def _finish(
        self, token: int, checkpoint: Checkpoint, settings: Settings, stop: threading.Event
    ) -> str | None:
        if stop.is_set():
            return "stop"
        if self.seconds > settings.deadline:
            return "deadline"
        return "end" if token in checkpoint.layout.stop_ids else None

    def _new_text(self, checkpoint: Checkpoint, ids: list[int]) -> str:
        """What the newest token adds; half a character, and white space that may turn out to be the last, wait."""
        text = checkpoint.layout.decode(ids)
        text = re.sub("[\\s\ufffd]+$", "", text)
        # a tokenizer that rewrites what stood before: show from the next word on
        if not text.startswith(self.text):
            return ""
        piece = text[len(self.text) :]
        self.text = text
        return piece


def stream_reply(
    checkpoint: Checkpoint,
    persona: Persona,
    turns: Sequence[str],
    settings: Settings | None = None,
    stop: threading.Event | None = None,
) -> ReplyStream:
    """The persona's next reply to `turns` (the last is the partner's). Set `stop` from any thread to end it at the next token.

    Raises UserError here if the persona and the message do not fit, and while iterating if the model fails.
    """
    settings = settings or Settings()
    prompt = build_prompt(
        checkpoint.layout, persona, turns, checkpoint.max_positions - settings.max_tokens
    )
    earlier = [
        i
        for turn in turns[1::2]
        for i in [*checkpoint.layout.encode(f" {turn}"), checkpoint.layout.end_id]
    ]
    return ReplyStream(checkpoint, prompt, settings, stop or threading.Event(), earlier)


def context_use(
    checkpoint: Checkpoint, persona: Persona, turns: Sequence[str], settings: Settings | None = None
) -> tuple[int, int]:
    """(tokens that persona and turns take, tokens that there is room for), for the page to show before turns are dropped."""
    room = checkpoint.max_positions - (settings or Settings()).max_tokens
    kept = turns[first_that_may_fit(checkpoint.layout, turns, room) :]
    parts = checkpoint.layout.segments(persona, kept, open_reply=False)
    return (sum(len(part.ids) for part in parts), room) if len(kept) == len(turns) else (room, room)


def next_tokens(checkpoint: Checkpoint, prompt: Prompt, sampler: Sampler) -> Iterator[int]:
    """The reply's tokens one by one, its end token too; nothing comes after `sampler.is_last`.

    What a recent conversation has in common with this prompt is not computed again, where the architecture has a cache.
    """
    if checkpoint.engine:
        checkpoint.engine.reap_finished()  # so that the turn before has given back what it read
    cache, done = (
        checkpoint.prefixes.take(prompt.ids, partial(new_cache, checkpoint))
        if checkpoint.has_cache
        else (None, 0)
    )
    if checkpoint.engine:
        try:
            yield from checkpoint.engine.tokens(
                Request(prompt.ids, done, cache, sampler, checkpoint.prefixes.give_back)
            )
        except RuntimeError as error:
            raise as_user_error(error) from error
        return
    ids: list[int] = []
    # what the cache is known to hold; a failed pass may have left it half filled
    computed: list[int] = []
    try:
        while not sampler.is_last(ids):
            sequence = prompt.ids + ids
            types = prompt.token_types and prompt.token_types + [checkpoint.layout.speaker1] * len(
                ids
            )
            computed = []
            logits = forward(checkpoint, sequence[done:], types and types[done:], cache)
            computed, done = sequence, len(sequence) if cache is not None else 0
            ids.append(sampler.sample(logits, ids))
            yield ids[-1]
    finally:
        if cache is not None:
            checkpoint.prefixes.give_back(computed, cache)


def new_cache(checkpoint: Checkpoint) -> Cache:
    """An empty one, as the checkpoint's passes want it."""
    return (
        checkpoint.engine.model.new_cache()
        if checkpoint.engine
        else DynamicCache(config=checkpoint.model.config)
    )


@torch.inference_mode()
def forward(
    checkpoint: Checkpoint, ids: list[int], token_types: list[int] | None, cache
) -> torch.Tensor:
    """One pass over `ids` behind what the cache holds; the logits of the last position, (vocabulary,) float32 on the CPU.

    Through transformers, for every architecture and device."""
    inputs = {"input_ids": torch.tensor([ids], device=checkpoint.device)}
    if token_types:
        inputs["token_type_ids"] = torch.tensor([token_types], device=checkpoint.device)
    if "logits_to_keep" in inspect.signature(checkpoint.model.forward).parameters:
        # the vocabulary is the widest layer: only the last position is asked for
        inputs["logits_to_keep"] = 1
    if cache is not None:
        inputs |= {"past_key_values": cache, "use_cache": True}
    try:
        return checkpoint.model(**inputs).logits[0, -1].float().cpu()
    except RuntimeError as error:
        raise as_user_error(error) from error
