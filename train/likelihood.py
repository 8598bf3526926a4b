"""How likely a checkpoint finds the gold replies of dialogues: log likelihoods from one forward pass per conversation.

Run: `python -m train.evaluate --model M --data FILE --only nats,swap`.

    ids       <system persona> <user hi> <assistant> hello you <end> <user ..> <assistant> not much <end>
    scored                                           ^^^^^^^^^^^^^^^                       ^^^^^^^^^^^^^^

A reply's likelihood includes its end token, and what stands before it is exactly the chat's prompt for the same turns.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from persona_bot.checkpoint import Checkpoint
from persona_bot.persona import Persona
from persona_bot.prompt import Layout, Prompt, build_prompt
from train.dialogues import Dialogue

NOBODY = Persona("", ())
Progress = Callable[[Iterable], Iterable]  # tqdm, or anything that passes its items on


class Row(NamedTuple):
    """One forward pass: ids, token types (or None), and where each scored reply starts and ends in the ids."""

    ids: list[int]
    token_types: list[int] | None
    spans: list[tuple[int, int]]


def reply_ids(layout: Layout, text: str) -> list[int]:
    """A reply's ids with its end token, as a training example supervises them."""
    ids = next(part.ids for part in reversed(layout.segments(NOBODY, ["", text], open_reply=False)) if part.is_reply)
    return ids if ids[-1:] == [layout.end_id] else [*ids, layout.end_id]


def types_of(layout: Layout, prompt: Prompt, reply: Sequence[int]) -> list[int] | None:
    return prompt.token_types and [*prompt.token_types, *[layout.speaker1] * len(reply)]


def rows_of(checkpoint: Checkpoint, dialogue: Dialogue, sentences: Sequence[str]) -> list[Row]:
    """The gold replies of a dialogue as rows, with `sentences` as the persona.

    Replies whose prompt continues the row before share it: a whole dialogue where the layout keeps the full history.
    """
    persona, layout = Persona("", tuple(sentences)), checkpoint.layout
    rows: list[Row] = []
    for history, candidates in dialogue.utterances:
        reply = reply_ids(layout, candidates[-1])
        prompt = build_prompt(layout, persona, history, checkpoint.max_positions - len(reply))
        spans = [(len(prompt.ids), len(prompt.ids) + len(reply))]
        if rows and prompt.ids[: len(rows[-1].ids)] == rows[-1].ids:
            spans = rows.pop().spans + spans
        rows.append(Row(prompt.ids + reply, types_of(layout, prompt, reply), spans))
    return rows


def gold_nats(
    checkpoint: Checkpoint, dialogues: Sequence[Dialogue], personas: Sequence[Sequence[str]], progress: Progress = iter
) -> list[float]:
    """Negative log likelihood of every gold reply and its end, in nats, in the order of the dialogues' utterances."""
    nats = []
    for dialogue, sentences in progress(list(zip(dialogues, personas, strict=True))):
        for row in rows_of(checkpoint, dialogue, sentences):
            nats += [-value for value in log_likelihoods(checkpoint, row)]
    return nats


def log_likelihoods(checkpoint: Checkpoint, row: Row) -> list[float]:
    """Log likelihood of each scored reply of a row, from one forward pass."""
    scored = [t for start, end in row.spans for t in range(start, end)]
    logits, _ = forward(checkpoint, row.ids, row.token_types, keep=[t - 1 for t in scored])  # each id is predicted at the one before
    values = token_log_likelihoods(logits, [row.ids[t] for t in scored])
    return [part.sum().item() for part in values.split([end - start for start, end in row.spans])]


def token_log_likelihoods(logits: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
    """(n, vocabulary) logits and n ids -> (n,) log likelihoods, in float32."""
    return -F.cross_entropy(logits.float(), torch.tensor(targets, device=logits.device), reduction="none")


@torch.inference_mode()
def forward(
    checkpoint: Checkpoint, ids: list[int], token_types: list[int] | None, keep: Sequence[int], ends: Sequence[int] = (), **inputs
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
