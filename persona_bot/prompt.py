"""The prompt for the next reply: a persona and as many of the newest turns as fit, as token ids in a layout (layouts.py)."""

from collections.abc import Sequence
from typing import NamedTuple

from persona_bot.errors import UserError
from persona_bot.layouts import Layout
from persona_bot.persona import Persona

NOBODY = Persona("", ())


class Prompt(NamedTuple):
    """What the model reads before it writes a reply."""

    ids: list[int]
    token_types: list[int] | None  # same length as ids, or None where the layout has none
    dropped: int  # how many of the oldest turns did not fit


def build_prompt(
    layout: Layout, persona: Persona, turns: Sequence[str], max_prompt_tokens: int
) -> Prompt:
    """The prompt for the next reply, in at most `max_prompt_tokens` ids: the persona whole, and as many of the newest turns as fit.

    `turns` alternate, begin and end with the partner's. Turns are dropped in pairs, so that the partner's stays first.
    Raises UserError when the persona and the newest turn alone exceed them.
    """
    first = first_that_may_fit(layout, turns, max_prompt_tokens)
    while True:
        parts = layout.segments(persona, turns[first:], add_generation_prompt=True)
        ids = [i for part in parts for i in part.ids]
        if len(ids) <= max_prompt_tokens:
            types = layout.token_types(parts)
            return Prompt(ids, types, first)
        if first + 2 >= len(turns):
            raise UserError(
                f"The persona and the message take {len(ids)} tokens and this model has room for {max_prompt_tokens}; shorten one of them."
            )
        first += 2


def first_that_may_fit(layout: Layout, turns: Sequence[str], max_prompt_tokens: int) -> int:
    """The partner's turn before which everything is dropped for certain: each text is encoded once, from the newest back."""
    first = 0
    if layout.max_turns and len(turns) > layout.max_turns:
        first = (len(turns) - layout.max_turns + 1) // 2 * 2
    used = 0
    for k in range(len(turns) - 1, first - 1, -1):
        used += len(layout.encode(turns[k]))
        if used > max_prompt_tokens:
            return min((k + 2) // 2 * 2, len(turns) - 1)
    return first


def unconditional_prompt(layout: Layout, max_prompt_tokens: int) -> Prompt:
    """No persona and no turns: behind it, a reply is as likely as it is at all."""
    return build_prompt(layout, NOBODY, [""], max_prompt_tokens)


def reply_ids(layout: Layout, text: str) -> list[int]:
    """A reply's ids with its end token, as a training example supervises them."""
    parts = layout.segments(NOBODY, ["", text], add_generation_prompt=False)
    ids = next(part.ids for part in reversed(parts) if part.is_reply)
    return ids if ids[-1:] == [layout.end_id] else [*ids, layout.end_id]
