"""Dialogues -> what the model learns from: ids, token types, and a target for every supervised position.

Run: `python -m train.examples FILE --model M` prints the first example, token by token, supervised ones marked.

    chat     <|im_start|>system .. <|im_end|> \\n <|im_start|>user \\n hi <|im_end|> \\n <|im_start|>assistant \\n hello you <|im_end|>
    target                                                                                     hello  you  <|im_end|>

`targets[t]` is the id to predict after position t, or -100: already shifted, unlike the `labels` of transformers. So the
convai layout, where no end token stands between earlier turns, still learns at every reply where it ends.
"""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE, ChatLayout, Layout
from persona_bot.persona import Persona
from train.data.dialogues import Dialogue, conversations

IGNORED = -100


class HasIds(Protocol):
    @property
    def ids(self) -> list[int]: ...


Packed = TypeVar("Packed", bound=HasIds)


class Example(NamedTuple):
    """One sequence. All lists have the same length; token_types is None where the layout has none.

    differences: (position, the ids that wrong candidates have there instead of the target), where they differ first.
    """

    ids: list[int]
    token_types: list[int] | None
    targets: list[int]
    differences: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @property
    def supervised(self) -> int:
        return sum(target != IGNORED for target in self.targets)


def conversation_example(
    layout: Layout, persona: Persona, turns: Sequence[str], both_sides: bool = False
) -> Example:
    """One conversation with every reply of the persona supervised; with `both_sides` the partner's turns too.

    It begins with exactly the ids that the chat would send for the same turns.
    """
    parts = layout.segments(persona, turns, add_generation_prompt=False)
    # stands for a partner who says nothing, so nobody learns to say it
    silence = layout.encode(SILENCE)
    ids: list[int] = []
    targets: list[int] = []
    for part in parts:
        start = len(ids)
        ids += part.ids
        targets += [IGNORED] * len(part.ids)
        is_partner_turn = (
            not part.by_bot
            and part.ids
            and part.ids[0] not in layout.control_ids
            and part.ids != silence
        )
        if part.is_reply or (both_sides and is_partner_turn):
            words = part.ids if part.ids[-1:] == [layout.end_id] else [*part.ids, layout.end_id]
            # what follows the position before it, and so on
            targets[start - 1 : start - 1 + len(words)] = words
    types = layout.token_types(parts)
    return Example(ids, types, targets)


def split_to_fit(
    layout: Layout, persona: Persona, turns: Sequence[str], length: int, both_sides: bool = False
) -> list[Example]:
    """The conversation as one example, or as several where it exceeds `length` ids: each repeats the persona, no turn twice.

    An exchange that is too long on its own is left out.
    """
    if len(turns) < 2:
        return []
    example = conversation_example(layout, persona, turns, both_sides)
    if len(example.ids) <= length:
        return [example]
    if len(turns) == 2:
        return []
    middle = len(turns) // 4 * 2 or 2
    halves = turns[:middle], turns[middle:]
    return [e for half in halves for e in split_to_fit(layout, persona, half, length, both_sides)]


def dialogue_examples(
    layout: Layout,
    dialogues: Iterable[Dialogue],
    length: int,
    both_sides: bool = False,
    shuffle_persona: random.Random | None = None,
) -> list[Example]:
    """Every conversation of every dialogue; a `shuffle_persona` generator puts the persona's sentences in a new order each."""
    return [
        example
        for dialogue in dialogues
        for example in examples_of(layout, dialogue, length, both_sides, shuffle_persona)
    ]


def examples_of(
    layout: Layout,
    dialogue: Dialogue,
    length: int,
    both_sides: bool,
    shuffle_persona: random.Random | None,
) -> list[Example]:
    """Every conversation of one dialogue, all with the persona's sentences in the same order."""
    sentences = list(dialogue.personality)
    if shuffle_persona:
        shuffle_persona.shuffle(sentences)
    persona = Persona("", tuple(sentences))
    return [
        example
        for turns in conversations(dialogue)
        for example in split_to_fit(layout, persona, turns, length, both_sides)
    ]


def replies_of(example: Example) -> tuple[list[int], list[list[int]]]:
    """(where each supervised reply starts in the ids, its ids with the end token)."""
    starts: list[int] = []
    replies: list[list[int]] = []
    for place, target in enumerate(example.targets):
        if target == IGNORED:
            continue
        if starts and starts[-1] + len(replies[-1]) == place + 1:
            replies[-1].append(target)
        else:
            starts.append(place + 1)
            replies.append([target])
    return starts, replies


def wrong_replies(
    layout: Layout, dialogues: Iterable[Dialogue], count: int
) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """The first `count` wrong candidates of every gold reply that has some, all as ids with the end token.

    A gold reply given twice keeps those of the first time. Raises UserError for a layout without an end token after each reply.
    """
    if not isinstance(layout, ChatLayout):
        raise UserError(
            "--negatives and --first-difference need a base with a chat template; recipe convai has a ranking head for the same end."
        )

    def ids(text: str) -> tuple[int, ...]:
        return (*layout.encode_reply(text), layout.end_id)

    wrong: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for dialogue in dialogues:
        for _, (*others, gold) in dialogue.utterances:
            if others and (key := ids(gold)) not in wrong:
                wrong[key] = [other for other in map(ids, others[:count]) if other != key]
    return wrong


def pack(examples: Sequence[Packed], length: int) -> list[list[Packed]]:
    """Rows of examples that together hold at most `length` ids: first fit, longest first; each example in exactly one row.

    An example longer than `length` gets a row of its own.
    """
    rows: list[tuple[int, list[Packed]]] = []
    for example in sorted(examples, key=lambda e: -len(e.ids)):
        for k, (used, row) in enumerate(rows):
            if used + len(example.ids) <= length:
                row.append(example)
                rows[k] = (used + len(example.ids), row)
                break
        else:
            rows.append((len(example.ids), [example]))
    return [row for _, row in rows]
