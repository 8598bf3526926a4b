"""Which sentences of the persona a reply used: how much less likely it is for whoever cannot see them.

    prompt, read already  -> reply                          log p(reply | all sentences)
                          -> reply, sentence 1 out of sight  less by 0.2 nats: not used
                          -> reply, sentence 2 out of sight  less by 7.9 nats: used

All of them are branches of one pass behind what the reply's own prompt left in the cache. A sentence that shares a word
with the reply needs less to count than one that shares none: replies lean on a persona's manner of speaking, too.
`python -m benchmarks.attribution` measures how often that is right, and what it costs.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from persona_bot.errors import UserError
from persona_bot.layouts import Layout
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt, reply_ids
from persona_bot.replies.reply import Model

if TYPE_CHECKING:
    from persona_bot.replies.local import LocalModel

# nats that a reply must lose without a sentence that it used: one that shares a word with it, and one that shares none
WITH_WORD = 0.4
WITHOUT_WORD = 4.0
# sentences that are looked at, so that it never costs more than the reply: in one pass, and where each is a pass of its own
AT_ONCE = 8
IN_TURN = 2
# words that say nothing about anybody, the ends of contractions among them
COMMON = frozenset(
    "a about again all also always am an and any are as at be been but by can cannot could d did do does don even ever "
    "every everything for from get go good great had has have he her here his how i if in is it its just know like ll lot "
    "lots love m make many me more most much my never nice no not now of oh old on once one only or our re really s she so "
    "some something still t that the their them then there they thing things think this to too us ve very was way we well "
    "were what when where which who will with would year years yes you your".split()
)
ENDING = re.compile(r"(?<=..)(ing|ed|ers?|es|e|s)$")
ELSEWHERE = "Which sentences a reply used cannot be told where the model runs on another machine."


def used_sentences(
    model: Model, persona: Persona, turns: Sequence[str], reply: str
) -> list[tuple[int, float]]:
    """(number, loss in nats) of each sentence that the reply to `turns` used, the most important first.

    Raises UserError where only a server could tell.
    """
    return over_threshold(persona, reply, sentence_losses(model, persona, turns, reply))


def over_threshold(
    persona: Persona, reply: str, losses: Sequence[float], without_word: float = WITHOUT_WORD
) -> list[tuple[int, float]]:
    """Those of the sentences' losses that count, the largest first, with the sentences' numbers."""
    said = words(reply)
    used = [
        (number, loss)
        for number, (sentence, loss) in enumerate(zip(persona.sentences, losses, strict=False))
        if loss > (WITH_WORD if words(sentence) & said else without_word)
    ]
    return sorted(used, key=lambda one: -one[1])


def sentence_losses(
    model: Model, persona: Persona, turns: Sequence[str], reply: str
) -> list[float]:
    """By how many nats the reply is less likely without each of the persona's sentences, in their order.

    Of a long persona those count that share most words with what was said last; the others' are 0.
    """
    if not hasattr(model, "backend"):
        raise UserError(ELSEWHERE)
    local = cast("LocalModel", model)
    if not persona.sentences or not reply:
        return []
    ids = reply_ids(local.layout, reply)
    prompt = build_prompt(local.layout, persona, turns, local.context_length - len(ids))
    fitting = turns[prompt.dropped :]
    said, asked = words(reply), words(turns[-1])
    of_interest = [(len(w & said), len(w & asked)) for w in map(words, persona.sentences)]
    order = sorted(range(len(of_interest)), key=of_interest.__getitem__, reverse=True)
    looked_at = order[: AT_ONCE if local.backend.is_shared else IN_TURN]
    hidden = [span(local.layout, persona, number, fitting) for number in looked_at]
    whole, *others = local.backend.score_hiding(prompt, ids, hidden)
    losses = [0.0] * len(persona.sentences)
    for number, other in zip(looked_at, others, strict=True):
        losses[number] = whole - other
    return losses


def words(text: str) -> set[str]:
    """The words of a text that say something, without their endings: write, writing and writers are one."""
    return {ENDING.sub("", word) for word in set(re.findall(r"\w+", text.lower())) - COMMON}


def span(layout: Layout, persona: Persona, number: int, turns: Sequence[str]) -> tuple[int, int]:
    """Where a sentence stands in the prompt: (first id, the one after its last)."""
    sentences = persona.sentences
    without = persona._replace(sentences=sentences[:number] + sentences[number + 1 :])
    ids, fewer = (
        [i for part in layout.segments(p, turns, add_generation_prompt=True) for i in part.ids]
        for p in (persona, without)
    )
    start = next((k for k, (a, b) in enumerate(zip(ids, fewer, strict=False)) if a != b), 0)
    return start, start + len(ids) - len(fewer)
