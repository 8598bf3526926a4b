"""The best of several replies: they are written at the same time, and the one that the conversation makes likeliest is shown.

Run: `python -m persona_bot --best-of 4`.

    prompt, read once --> draft 1 --.
                      `-> draft 2 --+--> the highest log p(draft | prompt) - log p(draft | nothing)
                      `-> draft 3 --'

The second term counts against what fits everywhere ("i love it. how about you?"). Nothing streams: the reply appears whole.
"""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.prefix_cache import Cache, PrefixCache
from persona_bot.engine.sampler import Sampler
from persona_bot.persona import Persona
from persona_bot.prompt import Prompt, build_prompt
from persona_bot.replies.reply import Settings, new_cache, next_tokens, stream_reply
from persona_bot.replies.scoring import Judge, prompt_of_nothing, reply_ids

APART = 1_000_003  # between the seeds of drafts, so that they are not those of the next reply
TICK = 0.05  # seconds between looks at whether the visitor has left


class BestReply:
    """Like generation.ReplyStream; a look at whether anybody still waits is an empty piece, and the reply the last one."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        persona: Persona,
        turns: Sequence[str],
        settings: Settings,
        stop: threading.Event | None = None,
    ):
        self.text = ""
        self.tokens = 0
        self.seconds = 0.0
        self.first_text_seconds: float | None = None
        self.finish: str | None = None  # of the draft that is shown
        self.drafts: list[str] = []  # the texts, in the order of their seeds
        prompt = build_prompt(
            checkpoint.layout, persona, turns, checkpoint.max_positions - settings.max_tokens
        )
        self.prompt_tokens, self.dropped_turns = len(prompt.ids), prompt.dropped
        self._halt = threading.Event()
        shared = replace(checkpoint, prefixes=PrefixCache())
        seed = random.randrange(2**32) if settings.seed is None else settings.seed
        one = [
            replace(settings, best_of=1, seed=(seed + APART * k) % 2**32)
            for k in range(settings.best_of)
        ]
        drafts = [stream_reply(shared, persona, turns, each, self._halt) for each in one]
        self._pieces = self._run(checkpoint, shared, prompt, drafts, stop or threading.Event())

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """Ends the drafts at once."""
        self._pieces.close()

    def _run(
        self,
        checkpoint: Checkpoint,
        shared: Checkpoint,
        prompt: Prompt,
        drafts: list,
        stop: threading.Event,
    ) -> Iterator[str]:
        started = time.monotonic()
        with ThreadPoolExecutor(len(drafts) if checkpoint.engine else 1) as writers:
            try:
                read = self._read(checkpoint, prompt)
                shared.prefixes.give_back(*read)
                written = [writers.submit("".join, draft) for draft in drafts]
                while wait(written, TICK).not_done:
                    yield ""
                    if stop.is_set():
                        self._halt.set()
            finally:
                self._halt.set()
        checkpoint.prefixes.give_back(*read)  # for the next turn
        self.drafts = [future.result() for future in written]  # raises what a draft raised
        best = drafts[0] if stop.is_set() else drafts[best_of(checkpoint, prompt, self.drafts)]
        self.text, self.tokens, self.finish = best.text, best.tokens, best.finish
        self.seconds = self.first_text_seconds = time.monotonic() - started
        if self.text:
            yield self.text

    @staticmethod
    def _read(checkpoint: Checkpoint, prompt: Prompt) -> tuple[list[int], Cache | None]:
        """(ids, their keys and values): the prompt without its last id, of which only what is new is computed."""
        reading = next_tokens(checkpoint, prompt, Sampler(checkpoint.layout, Settings(), []))
        next(reading)
        reading.close()
        if checkpoint.engine:
            checkpoint.engine.reap_finished()  # then the visitors' cache has the keys and values
        cache, count = checkpoint.prefixes.take(prompt.ids, partial(new_cache, checkpoint))
        return prompt.ids[:count], cache


def best_of(checkpoint: Checkpoint, prompt: Prompt, drafts: Sequence[str]) -> int:
    """Which draft gains most from the prompt; an empty one only where all are."""
    replies = [reply_ids(checkpoint.layout, text) for text in drafts]
    judge = Judge(checkpoint)
    nothing = judge.score(prompt_of_nothing(checkpoint), replies).log_likelihoods
    gains = [
        a - b for a, b in zip(judge.score(prompt, replies).log_likelihoods, nothing, strict=True)
    ]
    return max(range(len(drafts)), key=lambda k: (bool(drafts[k]), gains[k]))
