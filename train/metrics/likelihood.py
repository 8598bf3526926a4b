"""How likely a checkpoint finds the gold replies of dialogues: log likelihoods from one forward pass per conversation.

Run: `python -m train.evaluate --model M --data FILE --only nats,swap`.

    ids       <system persona> <user hi> <assistant> hello you <end> <user ..> <assistant> not much <end>
    scored                                           ^^^^^^^^^^^^^^^                       ^^^^^^^^^^^^^^

A reply's likelihood includes its end token, and what stands before it is exactly the chat's prompt for the same turns.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.likelihood import logits_at, token_log_likelihoods, types_with
from persona_bot.layouts import ChatLayout
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt, reply_ids
from persona_bot.replies.local import LocalModel
from train.data.dialogues import Dialogue

Progress = Callable[[Iterable], Iterable]  # tqdm, or anything that passes its items on


class Row(NamedTuple):
    """One forward pass: ids, token types (or None), and where each scored reply starts and ends in the ids."""

    ids: list[int]
    token_types: list[int] | None
    spans: list[tuple[int, int]]


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
        rows.append(Row(prompt.ids + reply, types_with(prompt, reply), spans))
    return rows


def gold_nats(
    checkpoint: Checkpoint,
    dialogues: Sequence[Dialogue],
    personas: Sequence[Sequence[str]],
    progress: Progress = iter,
) -> list[float]:
    """Negative log likelihood of every gold reply and its end, in nats, in the order of the dialogues' utterances."""
    nats = []
    for dialogue, sentences in progress(list(zip(dialogues, personas, strict=True))):
        for row in rows_of(checkpoint, dialogue, sentences):
            nats += [-value for value in log_likelihoods(checkpoint, row)]
    return nats


def served_nats(
    model: LocalModel, dialogues: Sequence[Dialogue], progress: Progress = iter
) -> list[float]:
    """`gold_nats` with the dialogues' own personas, through the weights and passes that answer in a chat."""
    nats = []
    for dialogue in progress(dialogues):
        persona = Persona("", dialogue.personality)
        for history, candidates in dialogue.utterances:
            reply = reply_ids(model.layout, candidates[-1])
            prompt = build_prompt(model.layout, persona, history, model.context_length - len(reply))
            nats += [-value for value in model.backend.score(prompt, [reply])]
    return nats


def log_likelihoods(checkpoint: Checkpoint, row: Row) -> list[float]:
    """Log likelihood of each scored reply of a row, from one forward pass."""
    scored = [t for start, end in row.spans for t in range(start, end)]
    # each id is predicted at the one before
    keep = [t - 1 for t in scored]
    logits, _ = logits_at(checkpoint.model, row.ids, row.token_types, keep)
    values = token_log_likelihoods(logits, [row.ids[t] for t in scored])
    return [part.sum().item() for part in values.split([end - start for start, end in row.spans])]


def as_written(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a layout that takes texts as a file writes them, `hi , i 'm ok !`; the convai layout does anyway."""
    if not isinstance(checkpoint.layout, ChatLayout):
        return checkpoint
    return replace(checkpoint, layout=AsWrittenLayout(checkpoint.tokenizer))


class AsWrittenLayout(ChatLayout):
    @staticmethod
    def tidy(text: str) -> str:
        return text
