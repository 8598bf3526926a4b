"""Which of several candidate replies a checkpoint finds best: hits@1, with all candidates in one forward pass.

Run: `python -m train.evaluate --model M --data FILE --only hits`.
"""

from collections.abc import Sequence

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.backend import Backend
from persona_bot.engine.likelihood import LikelihoodScorer
from persona_bot.persona import Persona
from persona_bot.prompt import Prompt, build_prompt, reply_ids, unconditional_prompt
from train.data.dialogues import Dialogue
from train.data.fitting import least_tokens
from train.metrics.likelihood import Progress
from train.metrics.text import is_hit, mean

AT_ONCE = 20  # candidates in a forward pass, where there is no need to keep more together
OTHERS = 4  # conversations of the file that stand for any conversation


def candidate_hits(
    checkpoint: Checkpoint,
    backend: Backend,
    dialogues: Sequence[Dialogue],
    progress: Progress = iter,
) -> dict[str, float]:
    """hits@1: share of replies whose gold candidate ranks first, by each measure; `backend` is how the checkpoint chats.

    over_anything   log p(reply | context) - how likely the reply is anyhow, estimated twice: log p(reply | nothing), and the
                    mean of log p(reply | other conversations); half of each
    over_nothing    log p(reply | context) - log p(reply | no persona, no turns)
    per_token       log p(reply | context) / tokens
    ranking_head    the double-heads model's own choice, where it has that head
    """
    layout, heads = checkpoint.layout, None
    if checkpoint.ranking_head:  # it answers in the same pass as the likelihoods
        heads = LikelihoodScorer(checkpoint.model, ranking_head=True)
    ids = {
        text: reply_ids(layout, text)
        for d in dialogues
        for u in d.utterances
        for text in u.candidates
    }
    anything = unconditional_prompt(layout, checkpoint.max_positions)
    nothing = likelihoods_behind(backend, anything, ids, progress)
    longest = max(map(len, ids.values()))
    behind = {}
    for number in sorted({k * len(dialogues) // OTHERS for k in range(OTHERS)}):
        other = dialogues[number]
        history = other.utterances[len(other.utterances) // 2].history
        room = checkpoint.max_positions - longest
        if least_tokens(layout, other.personality, history) > room:
            continue
        prompt = build_prompt(layout, Persona("", other.personality), history, room)
        behind[number] = likelihoods_behind(backend, prompt, ids, progress)
    hits: dict[str, list[bool]] = {
        "over_anything": [],
        "over_nothing": [],
        "per_token": [],
        "ranking_head": [],
    }
    for number, dialogue in enumerate(progress(dialogues)):
        others = [values for other, values in behind.items() if other != number] or [nothing]
        for history, texts in dialogue.utterances:
            replies = [ids[text] for text in texts]
            max_prompt_tokens = checkpoint.max_positions - max(map(len, replies))
            prompt = build_prompt(
                layout, Persona("", dialogue.personality), history, max_prompt_tokens
            )
            if heads:
                values, head = heads.score(prompt, replies)
            else:
                values, head = backend.score(prompt, replies), None
            anyhow = [
                (nothing[text] + mean([other[text] for other in others])) / 2 for text in texts
            ]
            hits["over_anything"].append(
                is_hit([v - w for v, w in zip(values, anyhow, strict=True)], texts)
            )
            hits["over_nothing"].append(
                is_hit([v - nothing[text] for v, text in zip(values, texts, strict=True)], texts)
            )
            hits["per_token"].append(
                is_hit([v / len(reply) for v, reply in zip(values, replies, strict=True)], texts)
            )
            hits["ranking_head"] += [is_hit(head, texts)] if head else []
    return {name: mean(values) for name, values in hits.items() if values}


def likelihoods_behind(
    backend: Backend, prompt: Prompt, ids: dict[str, list[int]], progress: Progress = iter
) -> dict[str, float]:
    """Log likelihood of each text (with its ids) as the reply to this prompt; every text once."""
    texts = sorted(ids, key=lambda text: len(ids[text]))
    values: dict[str, float] = {}
    for k in progress(range(0, len(texts), AT_ONCE)):
        batch = texts[k : k + AT_ONCE]
        scores = backend.score(prompt, [ids[text] for text in batch])
        values |= dict(zip(batch, scores, strict=True))
    return values
