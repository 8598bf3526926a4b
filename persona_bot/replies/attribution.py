"""Which sentences of the persona a reply used: how much less likely it is for whoever cannot see them.

    prompt, read already  -> reply                          log p(reply | all sentences)
                          -> reply, sentence 1 out of sight  less by 0.2 nats: not used
                          -> reply, sentence 2 out of sight  less by 7.9 nats: used

All of them are branches of one pass behind what the reply's own prompt left in the cache.
`python -m benchmarks.attribution` measures how often that is right, and what it costs.
"""

from collections.abc import Sequence

from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.prompt import Layout, build_prompt, reply_ids
from persona_bot.replies.reply import Model

# nats; what a reply loses without a sentence that it did not use stays below
USED = 1.5
ELSEWHERE = "Which sentences a reply used cannot be told where the model runs on another machine."


def used_sentences(
    model: Model, persona: Persona, turns: Sequence[str], reply: str
) -> list[tuple[int, float]]:
    """(number, loss in nats) of each sentence that the reply to `turns` used, the most important first.

    Raises UserError where only a server could tell.
    """
    losses = sentence_losses(model, persona, turns, reply)
    used = [(number, loss) for number, loss in enumerate(losses) if loss > USED]
    return sorted(used, key=lambda one: -one[1])


def sentence_losses(
    model: Model, persona: Persona, turns: Sequence[str], reply: str
) -> list[float]:
    """By how many nats the reply is less likely without each of the persona's sentences, in their order."""
    backend = getattr(model, "backend", None)
    if backend is None:
        raise UserError(ELSEWHERE)
    if not persona.sentences or not reply:
        return []
    ids = reply_ids(model.layout, reply)
    prompt = build_prompt(model.layout, persona, turns, model.context_length - len(ids))
    kept = turns[prompt.dropped :]
    hidden = [span(model.layout, persona, k, kept) for k in range(len(persona.sentences))]
    whole, *others = backend.score_hiding(prompt, ids, hidden)
    return [whole - other for other in others]


def span(layout: Layout, persona: Persona, number: int, turns: Sequence[str]) -> tuple[int, int]:
    """Where a sentence stands in the prompt: (first id, the one after its last)."""
    sentences = persona.sentences
    without = persona._replace(sentences=sentences[:number] + sentences[number + 1 :])
    ids, fewer = (
        [i for part in layout.segments(p, turns, open_reply=True) for i in part.ids]
        for p in (persona, without)
    )
    start = next((k for k, (a, b) in enumerate(zip(ids, fewer, strict=False)) if a != b), 0)
    return start, start + len(ids) - len(fewer)
