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
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from persona_bot.persona import Persona
from persona_bot.prompt import Prompt
from persona_bot.replies.reply import Reply
from persona_bot.settings import Settings

if TYPE_CHECKING:
    from persona_bot.replies.local import LocalModel

APART = 1_000_003  # between the seeds of drafts, so that they are not those of the next reply


def write_best(
    model: "LocalModel",
    prompt: Prompt,
    settings: Settings,
    stop: threading.Event,
    history: list[int],
    persona: Persona,
    reply: Reply,
) -> Iterator[str]:
    """The whole reply as one piece, behind empty ones.

    No draft has a thread of its own: where passes are shared, the one that is asked first leads a pass for all of them.
    Whoever closes this (the page's event loop, the garbage collector) closes the drafts, and no further token is drawn.
    """
    started = time.monotonic()
    seed = random.randrange(2**32) if settings.seed is None else settings.seed
    drafts = [
        Reply(partial(model.write, prompt, one, stop, history, persona, keep=False))
        for one in (
            replace(settings, best_of=1, seed=(seed + APART * k) % 2**32)
            for k in range(settings.best_of)
        )
    ]
    try:
        model.backend.prefill(prompt)
        for _ in in_turn(drafts, len(drafts) if model.backend.is_shared else 1):
            if stop.is_set():
                break
            yield ""
    finally:
        for draft in drafts:
            draft.close()
    if not stop.is_set():
        gains = model.gains(prompt, [draft.text for draft in drafts])
        order = sorted(range(len(drafts)), key=lambda k: (not drafts[k].text, -gains[k]))
        drafts = [drafts[k] for k in order]
    best = drafts[0]
    reply.drafts = [draft.text for draft in drafts]
    reply.num_tokens, reply.finish_reason = best.num_tokens, best.finish_reason
    reply.seconds = time.monotonic() - started
    if best.text:
        yield best.text


def in_turn(drafts: Sequence[Reply], at_once: int) -> Iterator[None]:
    """Lets so many drafts at once write a piece each, round after round, until all are complete."""
    waiting = list(drafts)
    writing = [waiting.pop(0) for _ in range(at_once)]
    while writing:
        writing = [draft for draft in writing if next(iter(draft), None) is not None]
        while waiting and len(writing) < at_once:
            writing.append(waiting.pop(0))
        yield
