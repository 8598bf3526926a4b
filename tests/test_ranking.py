"""Rivals: where replies start, who is drawn against whom, and that one row with branches equals separate runs.

Run: `python -m pytest tests/test_ranking.py`
"""

import pytest
import torch
import torch.nn.functional as F

from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt, find_layout
from train.examples import conversation_example
from train.likelihood import NOBODY, reply_ids
from train.packed_trainer import collate, summed_loss
from train.ranking import add_rivals, replies_of

CONVERSATIONS = [
    (Persona("", ("i keep bees.", "i am tall.")), ["hi, what do you do?", "i keep bees.", "do you like it?", "yes, a lot!"]),
    (Persona("", ("i sell shoes.",)), ["hello!", "hello, how are you?"]),
    (Persona("", ("my cat is old.",)), ["any pets?", "a cat.", "what is it called?", "moss, she is old.", "nice.", "thank you."]),
]


@pytest.fixture
def layout(chat_tokenizer):
    return find_layout(chat_tokenizer)


@pytest.fixture
def examples(layout):
    return [conversation_example(layout, persona, turns) for persona, turns in CONVERSATIONS]


@pytest.fixture
def nothing(layout) -> dict:
    texts = [reply for _, turns in CONVERSATIONS for reply in turns[1::2]]
    return {tuple(reply_ids(layout, text)): -10.0 - k for k, text in enumerate(texts)}


def test_replies_are_found_with_their_end_tokens(layout, examples):
    for example, (_, turns) in zip(examples, CONVERSATIONS, strict=True):
        starts, replies = replies_of(example)
        assert replies == [reply_ids(layout, reply) for reply in turns[1::2]]
        assert [example.ids[s : s + len(r)] for s, r in zip(starts, replies, strict=True)] == replies


def test_rivals_come_from_other_examples_and_are_reproducible(examples, nothing):
    ranked = add_rivals(examples, nothing, 2, seed=3)
    for example in ranked:
        own = {tuple(reply) for reply in replies_of(example.example)[1]}
        for contest in example.contests:
            rivals = [tuple(reply.ids) for reply in contest[1:]]
            assert len(set(rivals)) == 2 and not own & set(rivals)
            assert [reply.nothing for reply in contest] == [nothing[tuple(reply.ids)] for reply in contest]
    assert add_rivals(examples, nothing, 2, seed=3) == ranked != add_rivals(examples, nothing, 2, seed=4)


def test_a_row_with_branches_is_worth_what_separate_runs_are(chat_model, layout, examples, nothing):
    ranked = add_rivals(examples, nothing, 2, seed=0)
    expected = torch.zeros(2)
    for example, (persona, turns) in zip(ranked, CONVERSATIONS, strict=True):
        for k, contest in zip(range(1, len(turns), 2), example.contests, strict=True):
            prompt = build_prompt(layout, persona, turns[:k], 500).ids
            values = torch.tensor([log_likelihood(chat_model, prompt, reply.ids) for reply in contest])
            scores = values - torch.tensor([reply.nothing for reply in contest])
            expected += torch.stack([-values[0], F.cross_entropy(scores, torch.tensor(0))])
    batch = collate([ranked[:2], ranked[2:]], rival_weight=0.5)
    assert batch["input_ids"].shape[1] == sum(len(example.ids) for example in ranked)
    with torch.no_grad():
        total, count = summed_loss(chat_model, batch)
    assert count == sum(example.supervised for example in examples)
    assert total.item() == pytest.approx((expected[0] + 0.5 * expected[1]).item(), rel=1e-4)


def log_likelihood(model, prompt: list[int], reply: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return -F.cross_entropy(logits, torch.tensor(reply), reduction="sum").item()


def test_nobody_is_a_persona_without_sentences(layout):
    assert build_prompt(layout, NOBODY, [""], 500).ids  # what `nothing` is measured with
