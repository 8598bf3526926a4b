"""Negatives: where replies start, who is drawn against whom, and that one row with branches equals separate runs.

Run: `python -m pytest tests/train/test_contrastive_loss.py`
"""

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from persona_bot.persona import Persona
from persona_bot.prompt import NOBODY, build_prompt, reply_ids
from tests.sft_tiny import settings
from train import finetune
from train.data.dialogues import Dialogue, Utterance
from train.data.examples import IGNORED, conversation_example, replies_of, wrong_replies
from train.data.questions import make_dialogues
from train.recipes.base_model import load_base
from train.recipes.collate import collate
from train.recipes.contrastive_loss import UNCONDITIONAL_WEIGHT, add_negatives, losses
from train.recipes.packed_attention import packed_logits
from train.recipes.packed_trainer import summed_loss
from train.recipes.sft import train_sft

CONVERSATIONS = [
    (
        Persona("", ("i keep bees.", "i am tall.")),
        ["hi, what do you do?", "i keep bees.", "do you like it?", "yes, a lot!"],
    ),
    (Persona("", ("i sell shoes.",)), ["hello!", "hello, how are you?"]),
    (
        Persona("", ("my cat is old.",)),
        ["any pets?", "a cat.", "what is it called?", "moss, she is old.", "nice.", "thank you."],
    ),
]


@pytest.fixture
def layout(chat_tokenizer):
    return find_layout(chat_tokenizer)


@pytest.fixture
def examples(layout):
    return [conversation_example(layout, persona, turns) for persona, turns in CONVERSATIONS]


@pytest.fixture
def nobody(layout) -> list[int]:
    return build_prompt(layout, NOBODY, [""], 500).ids


def test_replies_are_found_with_their_end_tokens(layout, examples):
    for example, (_, turns) in zip(examples, CONVERSATIONS, strict=True):
        starts, replies = replies_of(example)
        assert replies == [reply_ids(layout, reply) for reply in turns[1::2]]
        assert [
            example.ids[s : s + len(r)] for s, r in zip(starts, replies, strict=True)
        ] == replies


def test_negatives_come_from_other_examples_and_are_reproducible(examples, nobody):
    ranked = add_negatives(examples, nobody, 2, seed=3)
    for example in ranked:
        own = {tuple(reply) for reply in replies_of(example.example)[1]}
        assert [candidates[0] for candidates in example.candidate_sets] == replies_of(
            example.example
        )[1]
        for candidates in example.candidate_sets:
            negatives = {tuple(reply) for reply in candidates[1:]}
            assert len(negatives) == 2 and not own & negatives
    assert (
        add_negatives(examples, nobody, 2, seed=3)
        == ranked
        != add_negatives(examples, nobody, 2, seed=4)
    )


def test_wrong_candidates_of_the_file_come_first(layout, examples, nobody):
    dialogues = [
        Dialogue(
            persona.sentences,
            tuple(
                Utterance(tuple(turns[:k]), ("i have no idea.", "never!", turns[k]))
                for k in range(1, len(turns), 2)
            ),
        )
        for persona, turns in CONVERSATIONS[:2]
    ]
    given = [reply_ids(layout, text) for text in ("i have no idea.", "never!")]
    ranked = add_negatives(examples, nobody, 3, 0, wrong_replies(layout, dialogues, 3))
    for example in ranked[:2]:
        for candidates in example.candidate_sets:
            assert candidates[1:3] == given and len(candidates) == 4
    # a dialogue that gives none draws all of its negatives
    assert all(not any(negative in given for negative in c[1:]) for c in ranked[2].candidate_sets)
    one = add_negatives(examples, nobody, 1, 0, wrong_replies(layout, dialogues, 1))
    assert [candidates[1] for example in one[:2] for candidates in example.candidate_sets] == [
        given[0]
    ] * 3


def test_too_few_replies_to_draw_from_are_named(examples, nobody):
    with pytest.raises(UserError, match="--negatives 4 needs more different replies"):
        add_negatives(examples, nobody, 4, seed=0)


def test_a_row_with_branches_is_worth_what_separate_runs_are(chat_model, layout, examples, nobody):
    ranked = add_negatives(examples, nobody, 2, seed=0)
    nats = candidate_sets = 0.0
    for example, (persona, turns) in zip(ranked, CONVERSATIONS, strict=True):
        for k, candidates in zip(range(1, len(turns), 2), example.candidate_sets, strict=True):
            prompt = build_prompt(layout, persona, turns[:k], 500).ids
            in_context, unconditional = (
                torch.tensor([log_likelihood(chat_model, p, reply) for reply in candidates])
                for p in (prompt, nobody)
            )
            nats -= in_context[0].item()
            candidate_sets += (
                F.cross_entropy(in_context - unconditional, torch.tensor(0))
                - UNCONDITIONAL_WEIGHT * unconditional[0]
            ).item()
    batch = collate([ranked[:2], ranked[2:]], negative_weight=0.5)
    assert batch["input_ids"].shape[1] == sum(len(example.ids) for example in ranked)
    with torch.no_grad():
        total, count = summed_loss(chat_model, batch)
        assert losses(chat_model, batch)[0].item() == pytest.approx(nats, rel=1e-4)
    assert count == sum(example.supervised for example in examples)
    assert total.item() == pytest.approx(nats + 0.5 * candidate_sets, rel=1e-4)


def log_likelihood(model, prompt: list[int], reply: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return -F.cross_entropy(logits, torch.tensor(reply), reduction="sum").item()


def test_the_right_reply_is_learnt(chat_model, layout, examples, nobody, tmp_path):
    model = copy.deepcopy(chat_model)
    ranked = add_negatives(examples, nobody, 2, seed=0)
    before = right_share(model, ranked)
    train_sft(model, ranked, [], tmp_path, settings(epochs=12, negatives=2, negative_weight=5.0))
    assert before < 1.0 == right_share(model.eval(), ranked)


def right_share(model, ranked) -> float:
    """Share of candidate_sets whose gold reply gains most from its context."""
    batch = collate([ranked])
    is_reply, ids = batch["choices"] != IGNORED, batch["choices"].clamp(min=0)
    with torch.no_grad():
        logits = packed_logits(model, batch, batch["predicts"])
    values = [
        (logits.log_softmax(-1)[batch[name], ids] * is_reply).sum(-1)
        for name in ("in_context", "unconditional")
    ]
    return ((values[0] - values[1]).argmax(-1) == 0).float().mean().item()


def test_an_adapter_goes_on_from_where_it_ended(chat_folder, tmp_path, capsys):
    """Twice `train.finetune`, the second from the first one's adapter."""
    data = tmp_path / "data.json"
    data.write_text(json.dumps(make_dialogues(8, seed=5)))
    given = [
        "--data",
        str(data),
        "--score-dialogues",
        "0",
        "--no-bf16",
        "--row-length",
        "512",
        "--negatives",
        "2",
        "--epochs",
        "1",
    ]
    finetune.main(
        [
            *given,
            "--model",
            str(chat_folder),
            "--out",
            str(tmp_path / "first"),
            "--lora-rank",
            "4",
            "--learning-rate",
            "5e-2",
        ]
    )
    adapter, ids = tmp_path / "first" / "adapter", torch.tensor([[5, 6, 7, 8]])
    started, *_, in_force = load_base(str(adapter), settings(lora_rank=32))
    with torch.no_grad():
        merged = load_checkpoint(str(tmp_path / "first"), "cpu").model.float()(ids).logits
        untrained = load_checkpoint(str(chat_folder), "cpu").model.float()(ids).logits
        assert (started.eval()(ids).logits - merged).norm() < 0.05 * (merged - untrained).norm()
    assert (in_force.lora_rank, {p.dtype for p in started.parameters() if p.requires_grad}) == (
        4,
        {torch.float32},
    )
    finetune.main([*given, "--model", str(adapter), "--out", str(tmp_path / "second")])
    assert f"base {chat_folder}, layout chat" in capsys.readouterr().out
    config = json.loads((tmp_path / "second" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (4, str(chat_folder))
    first, second = (
        json.loads((tmp_path / run / "training.json").read_text()) for run in ("first", "second")
    )
    assert second["goes_on_from"] == first and "goes_on_from" not in first
    files = [
        tmp_path / run / "adapter" / "adapter_model.safetensors" for run in ("first", "second")
    ]
    assert files[0].read_bytes() != files[1].read_bytes()
