"""Which of several candidate replies a checkpoint finds best: hits@1, with all candidates in one forward pass.

Run: `python -m train.evaluate --model M --data FILE --only hits`.
"""

from collections import defaultdict
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

    over_anything   log p(reply | context) - the reply's prior, estimated twice: log p(reply | the unconditional prompt), and
                    the mean of log p(reply | other conversations); half of each
    over_nothing    log p(reply | context) - log p(reply | the unconditional prompt: no persona, no turns)
    per_token       log p(reply | context) / tokens
    ranking_head    the double-heads model's own choice, where it has that head
    """
    layout, heads = checkpoint.layout, None
    if checkpoint.ranking_head:  # it answers in the same pass as the likelihoods
        heads = LikelihoodScorer(checkpoint.model, ranking_head=True)
    texts_of_all = (text for d in dialogues for u in d.utterances for text in u.candidates)
    ids = {text: reply_ids(layout, text) for text in texts_of_all}
    prompt = unconditional_prompt(layout, checkpoint.max_positions)
    unconditional = likelihoods_behind(backend, prompt, ids, progress)
    behind = likelihoods_behind_others(checkpoint, backend, dialogues, ids, progress)
    hits: dict[str, list[bool]] = defaultdict(list)
    for number, dialogue in enumerate(progress(dialogues)):
        persona = Persona("", dialogue.personality)
        others = [values for other, values in behind.items() if other != number] or [unconditional]
        for history, texts in dialogue.utterances:
            replies = [ids[text] for text in texts]
            room = checkpoint.max_positions - max(map(len, replies))
            prompt = build_prompt(layout, persona, history, room)
            if heads:
                values, head = heads.score(prompt, replies)
            else:
                values, head = backend.score(prompt, replies), None
            alone = [unconditional[text] for text in texts]
            prior = [
                (u + mean([o[t] for o in others])) / 2 for u, t in zip(alone, texts, strict=True)
            ]
            measures = {
                "over_anything": [v - p for v, p in zip(values, prior, strict=True)],
                "over_nothing": [v - u for v, u in zip(values, alone, strict=True)],
                "per_token": [v / len(reply) for v, reply in zip(values, replies, strict=True)],
                **({"ranking_head": head} if head else {}),
            }
            for name, measured in measures.items():
                hits[name].append(is_hit(measured, texts))
    return {name: mean(values) for name, values in hits.items()}


def likelihoods_behind_others(
    checkpoint: Checkpoint,
    backend: Backend,
    dialogues: Sequence[Dialogue],
    ids: dict[str, list[int]],
    progress: Progress = iter,
) -> dict[int, dict[str, float]]:
    """Log likelihood of each text in the middle of each of OTHERS conversations that leave room for it, by their numbers."""
    room = checkpoint.max_positions - max(map(len, ids.values()))
    behind = {}
    for number in sorted({k * len(dialogues) // OTHERS for k in range(OTHERS)}):
        other = dialogues[number]
        history = other.utterances[len(other.utterances) // 2].history
        if least_tokens(checkpoint.layout, other.personality, history) <= room:
            prompt = build_prompt(checkpoint.layout, Persona("", other.personality), history, room)
            behind[number] = likelihoods_behind(backend, prompt, ids, progress)
    return behind


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
