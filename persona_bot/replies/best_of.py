"""The best of several replies: they are written at the same time, and the one that the conversation makes likeliest is shown.

Run: `python -m persona_bot --best-of 4`.

    prompt, read once --> draft 1 --.
                      `-> draft 2 --+--> the highest log p(draft | prompt) - log p(draft | nothing)
                      `-> draft 3 --'

The second term counts against what fits everywhere ("i love it. how about you?"). Nothing streams: the reply appears whole.
"""

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from persona_bot.prompt import Prompt
from persona_bot.replies.reply import Reply
from persona_bot.settings import Settings

APART = 1_000_003  # between the seeds of drafts, so that they are not those of the next reply
TICK = 0.05  # seconds between looks at whether the visitor has left


def write_best(
    model,
    prompt: Prompt,
    settings: Settings,
    stop: threading.Event,
    history: list[int],
    reply: Reply,
) -> Iterator[str]:
    """The whole reply as one piece, behind empty ones. `model`: local.LocalModel.

    Nothing is joined here: whoever closes this (the page's event loop, the garbage collector) goes on at once, and the
    drafts end at their next token.
    """
    started, halt = time.monotonic(), threading.Event()
    seed = random.randrange(2**32) if settings.seed is None else settings.seed
    drafts = [
        Reply(partial(model.write, prompt, one, halt, history, keep=False))
        for one in (
            replace(settings, best_of=1, seed=(seed + APART * k) % 2**32)
            for k in range(settings.best_of)
        )
    ]
    try:
        yield from in_threads([partial(model.backend.prefill, prompt)])
        for _ in in_threads([partial("".join, draft) for draft in drafts]):
            yield ""
            if stop.is_set():
                halt.set()
    finally:
        halt.set()
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


def in_threads(tasks: Sequence[Callable]) -> Iterator[str]:
    """Runs the tasks at once, each in a thread of its own; an empty piece at each TICK until all are done.

    Raises what one of them raised, after the others are done. Whoever stops iterating leaves them to themselves.
    """
    outcomes: queue.SimpleQueue = queue.SimpleQueue()

    def run(task: Callable) -> None:
        try:
            task()
            outcomes.put(None)
        except BaseException as error:
            outcomes.put(error)

    for task in tasks:
        threading.Thread(target=run, args=(task,), name="draft").start()
    errors = []
    while len(errors) < len(tasks):
        try:
            errors.append(outcomes.get(timeout=TICK))
        except queue.Empty:
            yield ""
    for error in filter(None, errors):
        raise error
