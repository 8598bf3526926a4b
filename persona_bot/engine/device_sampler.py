"""sampler.py's draw for all rows of a pass at once, where the logits are: on a GPU one copy goes back a pass, of ids alone."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from persona_bot.engine.sampler import NO_NUMBER, Sampler
from persona_bot.errors import UserError


def draw(
    logits: Tensor, samplers: Sequence[Sampler], replies: Sequence[list[int]]
) -> list[int | Exception]:
    """The next token of each reply from logits (rows, vocabulary) float32; the error of a row that cannot be drawn from.

    Each request's own generator gives its number, so that a seed draws what it draws on a CPU, but for rounding."""
    settings = [sampler.settings for sampler in samplers]
    scores, device = logits[:, : samplers[0].num_ids].clone(), logits.device
    rows, vocabulary = scores.shape

    def column(values: Iterable[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(list(values), dtype=dtype, device=device)[:, None]

    broken = scores.isnan().any(1)
    per_row = list(zip(samplers, replies, strict=True))
    put(scores, [sampler.forbidden(ids) for sampler, ids in per_row], lambda old, row: -torch.inf)
    bias = column(sampler.end_bias(ids) for sampler, ids in per_row)
    ends = [sampler.sentence_ends for sampler in samplers]
    put(scores, ends, lambda old, row: old + bias[row, 0])
    penalty = column(s.repetition_penalty for s in settings)

    def penalized(old: Tensor, row: Tensor) -> Tensor:
        return torch.where(old < 0, old * penalty[row, 0], old / penalty[row, 0])

    put(scores, [sorted(set(ids)) for ids in replies], penalized)
    heat = column(s.temperature or 1.0 for s in settings)
    probabilities = (scores / heat).softmax(-1)
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    most = column((s.top_k or vocabulary for s in settings), torch.long)
    ranked = ranked * (torch.arange(vocabulary, device=device) < most)
    before = ranked.cumsum(-1) - ranked
    share = column(s.top_p for s in settings) * ranked.sum(-1, keepdim=True)
    # back in the vocabulary's order: what is about as likely must not swap places
    weights = torch.zeros_like(ranked).scatter_(1, order, ranked * (before < share))
    cdf = weights.cumsum(-1, dtype=torch.float32 if device.type == "mps" else torch.float64)
    numbers = column(
        (
            0.0 if s.temperature == 0 else r.random.random()
            for s, r in zip(settings, samplers, strict=True)
        ),
        cdf.dtype,
    )
    drawn = torch.searchsorted(cdf, numbers * cdf[:, -1:], right=True)[:, 0]
    greedy = column((s.temperature == 0 for s in settings), torch.bool)[:, 0]
    tokens = torch.where(greedy, scores.argmax(-1), drawn.clamp_(max=vocabulary - 1))
    found = torch.where(broken, -1, tokens).tolist()
    return [UserError(NO_NUMBER) if token < 0 else token for token in found]


def put(
    scores: Tensor, ids: Sequence[Sequence[int]], change: Callable[[Tensor, Tensor], Tensor | float]
) -> None:
    """Changes the scores of these ids of each row; `change` gets the old ones and their rows."""
    vocabulary = scores.shape[1]
    pairs = [(row, i) for row, some in enumerate(ids) for i in set(some) if i < vocabulary]
    if pairs:
        row, col = torch.tensor(pairs, device=scores.device).T
        old = scores[row, col]
        new = change(old, row)
        scores[row, col] = new if isinstance(new, Tensor) else torch.full_like(old, new)
