"""How likely a transformers model finds replies behind a prompt, all of them in one forward pass where its cache allows.

ids         what is new in the prompt | reply 1          | reply 2          | ..
positions   .. n-2 n-1                | n n+1 ..         | n n+1 ..         | ..
sees        the past                  | prompt and itself | prompt and itself | ..
"""

import inspect
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicCache, DynamicLayer

from persona_bot.engine.prefix_cache import common_length
from persona_bot.prompt import Prompt

if TYPE_CHECKING:  # 2 s
    from transformers import PreTrainedModel


class Scores(NamedTuple):
    """Scores of candidates, in their order. `head` is None without a ranking head."""

    log_likelihoods: list[float]  # the end token included
    head: list[float] | None


class LikelihoodScorer:
    """Scores candidates behind a prompt, and keeps the prompt's keys and values for the next call."""

    def __init__(self, model: "PreTrainedModel", ranking_head: bool = False):
        self.model, self.ranking_head = model, ranking_head
        self.cached: list[int] = []  # the ids whose keys and values the cache holds
        self.cache = new_cache(model)
        if not (can_crop(self.cache) and can_branch(model)):
            self.cache = None

    def score(self, prompt: Prompt, replies: Sequence[list[int]]) -> Scores:
        """Every candidate reply, given as ids with the end token."""
        if self.cache is None:
            return score_one_by_one(self.model, prompt, replies, self.ranking_head)
        num_cached = min(common_length(self.cached, prompt.ids), len(prompt.ids) - 1)
        self.cache.crop(num_cached - len(self.cached))  # a negative number: how many to forget
        self.cached = []  # should the pass fail
        scores = score_together(
            self.model, prompt, replies, self.cache, num_cached, self.ranking_head
        )
        self.cached = list(prompt.ids)
        return scores


def score_together(
    model: "PreTrainedModel",
    prompt: Prompt,
    replies: Sequence[list[int]],
    cache: DynamicCache,
    num_cached: int,
    ranking_head: bool = False,
) -> Scores:
    """Every candidate, in one pass; the cache holds the first `num_cached` ids of the prompt, and all of them afterwards."""
    length, flat = len(prompt.ids), [i for reply in replies for i in reply]
    new = length - num_cached
    # where each reply ends in this pass; first: where they start
    ends = list(accumulate(map(len, replies), initial=new))
    owners = [0] * new + [number for number, reply in enumerate(replies, 1) for _ in reply]
    types = types_with(prompt, flat)
    after = [length + k for reply in replies for k in range(len(reply))]
    logits, head = logits_at(  # from the prompt's last id on
        model,
        prompt.ids[num_cached:] + flat,
        types and types[num_cached:],
        keep=range(new - 1, new + len(flat)),
        ranked=[end - 1 for end in ends[1:]] if ranking_head else (),
        position_ids=torch.tensor([[*range(num_cached, length), *after]], device=model.device),
        attention_mask=branch_mask(num_cached, owners, model.dtype).to(model.device),
        past_key_values=cache,
        use_cache=True,
    )
    cache.crop(-len(flat))
    # a reply's first id is predicted at the prompt's end, each other one at the id before it
    rows = [
        0 if k == 0 else start - new + k
        for start, reply in zip(ends, replies, strict=False)
        for k in range(len(reply))
    ]
    values = logits.float().log_softmax(-1)[rows, flat].split([len(reply) for reply in replies])
    return Scores([value.sum().item() for value in values], head)


def score_one_by_one(
    model: "PreTrainedModel",
    prompt: Prompt,
    replies: Sequence[list[int]],
    ranking_head: bool = False,
) -> Scores:
    """A whole pass for each candidate: for models without a cache, or with attention that is not plain."""
    values, heads = [], []
    for reply in replies:
        ids, start = prompt.ids + reply, len(prompt.ids)
        logits, head = logits_at(
            model,
            ids,
            types_with(prompt, reply),
            keep=range(start - 1, len(ids) - 1),
            ranked=[len(ids) - 1] if ranking_head else (),
        )
        values.append(token_log_likelihoods(logits, reply).sum().item())
        heads += head or []
    return Scores(values, heads or None)


def new_cache(model: "PreTrainedModel") -> DynamicCache | None:
    """transformers' own, as the architecture wants it; None where a pass takes none."""
    # openai-gpt names the parameter and ignores it
    if model.config.model_type == "openai-gpt" or not takes(model, "past_key_values"):
        return None
    return DynamicCache(config=model.config)


def can_crop(cache: DynamicCache | None) -> bool:
    """Whether every layer keeps the keys and values of all positions, so that the last ones can be forgotten again."""
    return cache is not None and all(type(layer) is DynamicLayer for layer in cache.layers)


def can_branch(model: "PreTrainedModel") -> bool:
    """Whether candidates side by side score as each alone: ALiBi, for one, takes no positions or no mask of our own."""
    from persona_bot.engine.gate import NUM_IDS, TOLERANCE, precise, trial  # 2 s

    try:
        with precise(model):
            ids, types = trial(model, 3 * NUM_IDS)
            prompt = Prompt(ids[:NUM_IDS], types and types[:NUM_IDS], 0)
            replies = [ids[NUM_IDS : 2 * NUM_IDS], ids[2 * NUM_IDS :]]
            alone = score_one_by_one(model, prompt, replies).log_likelihoods
            cache = DynamicCache(config=model.config)
            together = score_together(model, prompt, replies, cache, 0).log_likelihoods
    except Exception:  # whatever a model does in another way
        return False
    tolerance = TOLERANCE.get(model.dtype, 0.0) / 10  # a sum over tokens: rounding evens out
    pairs = zip(together, alone, strict=True)
    return all(abs(found - right) <= tolerance * abs(right) for found, right in pairs)


def takes(model: "PreTrainedModel", parameter: str) -> bool:
    return parameter in inspect.signature(model.forward).parameters


def branch_mask(num_cached: int, owners: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores, (1, 1, T, num_cached + T): 0 where a position may look, the lowest number elsewhere.

    `owners`: 0 for the context, k for candidate k. All see the `num_cached` cached positions and, up to themselves, the
    context and their own candidate.
    """
    owner, place = torch.tensor(owners), torch.arange(len(owners))
    mine = (owner[None] == 0) | (owner[None] == owner[:, None])
    past = torch.ones(len(owners), num_cached, dtype=torch.bool)
    allowed = torch.cat([past, mine & (place[None] <= place[:, None])], dim=1)
    lowest = torch.finfo(dtype).min
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, lowest)[None, None]


def types_with(prompt: Prompt, reply: Sequence[int]) -> list[int] | None:
    """Token types of the prompt and a reply behind it, which has those of the prompt's last id."""
    types = prompt.token_types
    return types and [*types, *[types[-1]] * len(reply)]


def token_log_likelihoods(logits: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
    """(n, vocabulary) logits and n ids -> (n,) log likelihoods, in float32."""
    wanted = torch.tensor(targets, device=logits.device)
    return -F.cross_entropy(logits.float(), wanted, reduction="none")


@torch.inference_mode()
def logits_at(
    model: "PreTrainedModel",
    ids: Sequence[int],
    token_types: Sequence[int] | None,
    keep: Sequence[int],
    ranked: Sequence[int] = (),
    **inputs: Any,
) -> tuple[torch.Tensor, list[float] | None]:
    """Logits (len(keep), vocabulary) at the positions `keep`; also the ranking head's scores at the positions `ranked`."""
    inputs["input_ids"] = torch.tensor([ids], device=model.device)
    if token_types:
        inputs["token_type_ids"] = torch.tensor([token_types], device=model.device)
    wanted = torch.tensor(keep, device=model.device)
    if ranked:
        ranking: Any = model
        hidden = ranking.transformer(**inputs).last_hidden_state[0]  # (T, width)
        head = ranking.multiple_choice_head(hidden[ranked, None]).flatten().tolist()
        return ranking.lm_head(hidden[wanted]), head
    # the vocabulary is the widest layer: only what is wanted is asked for
    if takes(model, "logits_to_keep"):
        return model(**inputs, logits_to_keep=wanted).logits[0], None
    return model(**inputs).logits[0, wanted], None
