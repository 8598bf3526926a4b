"""Replies that do not fit in a model with their persona and message: left out before any work, and said."""

import functools
import sys
from collections.abc import Sequence

from persona_bot.errors import UserError
from persona_bot.layouts import Layout
from persona_bot.persona import Persona
from persona_bot.prompt import reply_ids
from train.data.dialogues import Dialogue, Utterance
from train.data.sources import plural


def least_tokens(layout: Layout, personality: Sequence[str], history: Sequence[str]) -> int:
    """The length of the prompt of a persona and the newest turn alone."""
    parts = layout.segments(Persona("", tuple(personality)), history[-1:], True)
    return sum(len(part.ids) for part in parts)


def fits_as(personality: Sequence[str], dialogue: Dialogue, layout: Layout, positions: int) -> bool:
    """Whether every gold reply of a dialogue fits behind this persona."""
    return all(
        least_tokens(layout, personality, history) + len(reply_ids(layout, candidates[-1]))
        <= positions
        for history, candidates in dialogue.utterances
    )


def that_fit(
    layout: Layout,
    dialogues: Sequence[Dialogue],
    positions: int,
    room: int = 0,
    only_gold: bool = False,
    may_be_none: bool = False,
) -> list[Dialogue]:
    """The dialogues with the utterances that a model of so many positions can read; stderr says how many it cannot.

    `room`: tokens that a reply may take at least; `only_gold`: wrong candidates do not count.
    Raises UserError where no reply is left, unless that may be.
    """
    size = functools.cache(lambda text: len(reply_ids(layout, text)))
    left_out: list[tuple[str, int]] = []

    def fits(dialogue: Dialogue, utterance: Utterance) -> bool:
        candidates = utterance.candidates[-1:] if only_gold else utterance.candidates
        tokens = least_tokens(layout, dialogue.personality, utterance.history)
        tokens += max(room, *map(size, candidates))
        if tokens > positions:
            left_out.append((utterance.candidates[-1], tokens))
        return tokens <= positions

    kept = [d._replace(utterances=tuple(u for u in d.utterances if fits(d, u))) for d in dialogues]
    kept = [dialogue for dialogue in kept if dialogue.utterances]
    if not kept and not may_be_none:
        raise UserError(
            f"Not one reply fits in the model's {positions:,} tokens with its persona and message; shorten them."
        )
    if left_out:
        reply, tokens = left_out[0]
        print(
            f"{plural(len(left_out), 'reply')} left out, the first: {reply[:40]!r} needs {tokens:,} tokens with its persona "
            f"and message, and the model has {positions:,}.",
            file=sys.stderr,
        )
    return kept
