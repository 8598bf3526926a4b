"""The two numbers that simpletransformers' `ConvAIModel.eval_model` prints, computed as it computes them.

Run: `python -m train.evaluate --model M --data FILE` shows them, labelled as ConvAIModel's.

    language_model_loss    mean over batches of (nats of the batch's gold replies / their tokens): not weighted by tokens
    f1_score               mean over batches of the macro F1 of the candidate that the ranking head chooses

Neither is what its name suggests. `f1_score` compares no texts: the gold reply is always the last candidate, so there is
one true class, and every wrong choice adds a class with F1 zero to the mean. In batches of one it is hits@1; in larger
batches the same model scores lower. Quote it with its batch size.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.likelihood import LikelihoodScorer
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt
from train.data.dialogues import Dialogue
from train.metrics.text import mean

Metric = Callable[[Any, Any], Any]  # of labels and predictions, as scikit-learn's


def convai_scores(
    checkpoint: Checkpoint,
    dialogues: Sequence[Dialogue],
    progress: Callable[[Iterable], Iterable] = iter,
    batch_size: int = 1,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, float]:
    """`language_model_loss` and `f1_score` of a checkpoint with a ranking head (`load_checkpoint(..., double_heads=True)`).

    `batch_size`: ConvAIModel's `eval_batch_size`; the reference run had 1. `metrics`: more, each of the numbers of all gold
    candidates and of those that the head chose. Raises UserError without a ranking head.
    """
    if not checkpoint.ranking_head:
        raise UserError(
            f"{checkpoint.name} has no ranking head, so ConvAIModel's scores cannot be computed; score a convai checkpoint."
        )
    scorer, layout = LikelihoodScorer(checkpoint.model, ranking_head=True), checkpoint.layout
    # a reply: nats, tokens, how far before the gold the chosen candidate stands
    results: list[tuple[float, int, int]] = []
    labels: list[int] = []
    predictions: list[int] = []
    for dialogue in progress(dialogues):
        for history, candidates in dialogue.utterances:
            replies = [[*layout.encode(text), layout.end_id] for text in candidates]
            max_prompt_tokens = checkpoint.max_positions - max(map(len, replies))
            scores = scorer.score(
                build_prompt(layout, Persona("", dialogue.personality), history, max_prompt_tokens),
                replies,
            )
            head = scores.head or []  # it is there: see above
            chosen = head.index(max(head))
            labels.append(len(candidates) - 1)
            predictions.append(chosen)
            results.append(
                (-scores.log_likelihoods[-1], len(replies[-1]), len(candidates) - 1 - chosen)
            )
    batches = [results[k : k + batch_size] for k in range(0, len(results), batch_size)]
    return {
        "language_model_loss": mean(
            sum(r[0] for r in batch) / sum(r[1] for r in batch) for batch in batches
        ),
        "f1_score": mean(macro_f1([r[2] for r in batch]) for batch in batches),
        **{
            name: np.asarray(metric(np.array(labels), np.array(predictions))).tolist()
            for name, metric in (metrics or {}).items()
        },
    }


def check_metrics(metrics: Mapping[str, object]) -> None:
    """Raises UserError for the first that is no function."""
    for name, metric in metrics.items():
        if not callable(metric):
            raise UserError(
                f"{name} is no argument here, and no metric, which is a function of labels and predictions; leave it out."
            )


def macro_f1(chosen: Sequence[int]) -> float:
    """scikit-learn's macro F1 where the truth is always 0: the mean over all numbers chosen, and 0.

    The F1 of a wrong number is 0; that of 0 has a precision of 1 (or is 0), and the share of hits as its recall.
    """
    hits = sum(number == 0 for number in chosen)
    return 2 * hits / (len(chosen) + hits) / len({0, *chosen})
