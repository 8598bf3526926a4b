"""How likely a checkpoint finds replies behind a prompt, all of them in one forward pass.

    ids         what is new in the prompt | reply 1          | reply 2          | ..
    positions   .. n-2 n-1                | n n+1 ..         | n n+1 ..         | ..
    sees        the past                  | prompt and itself | prompt and itself | ..

Keys and values of the prompt stay for the next call, so a dialogue is read once.
"""

import inspect
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicCache

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.prefix_cache import common_length
from persona_bot.persona import Persona
from persona_bot.prompt import Layout, Prompt, build_prompt

NOBODY = Persona("", ())


class Verdict(NamedTuple):
    """Scores of candidates, in their order. `head` is None without a ranking head."""

    log_likelihoods: list[float]  # the end token included
    head: list[float] | None


class Judge:
    """Scores candidates behind a prompt, and keeps the prompt's keys and values for the next call."""

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self.cached: list[int] = []  # the ids whose keys and values the cache holds
        self.cache = (
            DynamicCache(config=checkpoint.model.config)
            if not checkpoint.engine and can_share(checkpoint)
            else None
        )
        self.keys_values = checkpoint.engine.model.new_cache() if checkpoint.engine else None

    def score(self, prompt: Prompt, replies: Sequence[list[int]]) -> Verdict:
        """Every candidate reply, given as ids with the end token."""
        if self.keys_values is not None:
            return self._with_engine(prompt, replies)
        return (
            self._together(prompt, replies)
            if self.cache is not None
            else self._one_by_one(prompt, replies)
        )

    def _together(self, prompt: Prompt, replies: Sequence[list[int]]) -> Verdict:
        length = len(prompt.ids)
        known = min(common_length(self.cached, prompt.ids), length - 1)
        self.cache.crop(known - len(self.cached))  # a negative number: how many to forget
        new, flat = length - known, [i for reply in replies for i in reply]
        # where each reply ends in this pass; first: where they start
        ends = list(accumulate(map(len, replies), initial=new))
        owners = [0] * new + [number for number, reply in enumerate(replies, 1) for _ in reply]
        positions = [
            *range(known, length),
            *(length + k for reply in replies for k in range(len(reply))),
        ]
        types = prompt.token_types and prompt.token_types[known:] + [
            self.checkpoint.layout.speaker1
        ] * len(flat)
        model = self.checkpoint.model
        logits, head = forward(  # logits from the prompt's last id on
            self.checkpoint,
            prompt.ids[known:] + flat,
            types,
            keep=range(new - 1, new + len(flat)),
            ends=[end - 1 for end in ends[1:]],
            position_ids=torch.tensor([positions], device=self.checkpoint.device),
            attention_mask=apart(known, owners, model.dtype).to(self.checkpoint.device),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache.crop(-len(flat))
        self.cached = list(prompt.ids)
        # a reply's first id is predicted at the prompt's end, each other one at the id before it
        rows = [
            0 if k == 0 else start - new + k
            for start, reply in zip(ends, replies, strict=False)
            for k in range(len(reply))
        ]
        values = logits.float().log_softmax(-1)[rows, flat].split([len(reply) for reply in replies])
        return Verdict([value.sum().item() for value in values], head)

    def _with_engine(self, prompt: Prompt, replies: Sequence[list[int]]) -> Verdict:
        """The prompt, then every candidate as a branch behind it, in one pass."""
        model, known = (
            self.checkpoint.engine.model,
            min(common_length(self.cached, prompt.ids), len(prompt.ids) - 1),
        )
        self.keys_values.length = known
        logits = model.forward([(prompt.ids[known:], self.keys_values)])
        self.cached = list(prompt.ids)
        later = [reply[:-1] for reply in replies]
        if any(later):
            logits = torch.cat([logits, model.forward_branches(later, self.keys_values)])
        starts = accumulate(map(len, later), initial=1)  # row 0 predicts every reply's first id
        rows = [
            0 if k == 0 else start + k - 1
            for start, reply in zip(starts, replies, strict=False)
            for k in range(len(reply))
        ]
        values = logits[rows, [i for reply in replies for i in reply]] - logits.logsumexp(-1)[rows]
        return Verdict(
            [value.sum().item() for value in values.split([len(reply) for reply in replies])], None
        )

    def _one_by_one(self, prompt: Prompt, replies: Sequence[list[int]]) -> Verdict:
        """For models without a cache, or with attention that is not plain: slow."""
        values, heads = [], []
        for reply in replies:
            ids, start = prompt.ids + reply, len(prompt.ids)
            types = types_of(self.checkpoint.layout, prompt, reply)
            logits, head = forward(
                self.checkpoint,
                ids,
                types,
                keep=range(start - 1, len(ids) - 1),
                ends=[len(ids) - 1],
            )
            values.append(token_log_likelihoods(logits, reply).sum().item())
            heads += head or []
        return Verdict(values, heads or None)


def can_share(checkpoint: Checkpoint) -> bool:
    """Whether every layer is full attention with a cache, so that a mask can keep candidates apart."""
    layers = getattr(checkpoint.model.config, "layer_types", None) or ["full_attention"]
    return (
        checkpoint.has_cache
        and set(layers) == {"full_attention"}
        and not getattr(checkpoint.model.config, "sliding_window", None)
    )


def apart(known: int, owners: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores, (1, 1, T, known + T): 0 where a position may look, the lowest number elsewhere.

    `owners`: 0 for the context, k for candidate k. All see the `known` cached positions and, up to themselves, the
    context and their own candidate.
    """
    owner, place = torch.tensor(owners), torch.arange(len(owners))
    mine = (owner[None] == 0) | (owner[None] == owner[:, None])
    allowed = torch.cat(
        [torch.ones(len(owners), known, dtype=torch.bool), mine & (place[None] <= place[:, None])],
        dim=1,
    )
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)[
        None, None
    ]


def prompt_of_nothing(checkpoint: Checkpoint) -> Prompt:
    """No persona and no turns: behind it, a reply is as likely as it is at all."""
    return build_prompt(checkpoint.layout, NOBODY, [""], checkpoint.max_positions)


def reply_ids(layout: Layout, text: str) -> list[int]:
    """A reply's ids with its end token, as a training example supervises them."""
    ids = next(
        part.ids
        for part in reversed(layout.segments(NOBODY, ["", text], open_reply=False))
        if part.is_reply
    )
    return ids if ids[-1:] == [layout.end_id] else [*ids, layout.end_id]


def types_of(layout: Layout, prompt: Prompt, reply: Sequence[int]) -> list[int] | None:
    return prompt.token_types and [*prompt.token_types, *[layout.speaker1] * len(reply)]


def token_log_likelihoods(logits: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
    """(n, vocabulary) logits and n ids -> (n,) log likelihoods, in float32."""
    return -F.cross_entropy(
        logits.float(), torch.tensor(targets, device=logits.device), reduction="none"
    )


@torch.inference_mode()
def forward(
    checkpoint: Checkpoint,
    ids: list[int],
    token_types: list[int] | None,
    keep: Sequence[int],
    ends: Sequence[int] = (),
    **inputs,
) -> tuple[torch.Tensor, list[float] | None]:
    """Logits (len(keep), vocabulary) at the positions `keep`; with a ranking head also its scores at the positions `ends`."""
    model, device = checkpoint.model, checkpoint.device
    if checkpoint.engine:
        fast = checkpoint.engine.model
        return fast.forward([(ids, fast.new_cache())], all_positions=True)[list(keep)], None
    inputs["input_ids"] = torch.tensor([ids], device=device)
    if token_types:
        inputs["token_type_ids"] = torch.tensor([token_types], device=device)
    wanted = torch.tensor(keep, device=device)
    if checkpoint.ranking_head:
        hidden = model.transformer(**inputs).last_hidden_state[0]  # (T, width)
        head = model.multiple_choice_head(hidden[ends, None]).flatten().tolist() if ends else None
        return model.lm_head(hidden[wanted]), head
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(**inputs, logits_to_keep=wanted).logits[0], None
    return model(**inputs).logits[0, wanted], None
