"""Interviews in training: conversations that begin alike equal separate runs, and wrong candidates count where they differ first.

Run: `python -m pytest tests/train/test_branched.py`
"""

import copy
import os
import random

import pytest
import torch

from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt, reply_ids
from tests.sft_tiny import settings
from tests.tiny_models import REFUSED, SHARED, build
from train.data.branched import BranchedExample, branched, branched_examples
from train.data.dialogues import Dialogue, Utterance
from train.data.examples import IGNORED, Example, dialogue_examples
from train.recipes.collate import collate
from train.recipes.contrastive_loss import RankedExample
from train.recipes.packed_trainer import summed_loss
from train.recipes.sft import set_up_attention, train_sft

PERSONA = ("i sell shoes.", "i am afraid of dogs.")
BEGINNING = ("hello!", "hi, i sell shoes.")
INTERVIEW = Dialogue(
    PERSONA,
    (
        Utterance((*BEGINNING, "what do you do?"), ("i bake.", "i sell shoes.")),
        Utterance((*BEGINNING, "any pets?"), ("yes, i do.", "no, i sell shoes.")),
        Utterance((*BEGINNING, "do you like dogs?"), ("yes, i do.", "i do not.")),
    ),
)
OTHER = Dialogue(("my cat is old.",), (Utterance(("any pets?",), ("no.", "a cat.")),))


@pytest.fixture
def layout(chat_tokenizer):
    return find_layout(chat_tokenizer)


def test_what_conversations_share_stands_once(layout):
    apart = dialogue_examples(layout, [INTERVIEW], 500)
    (whole,) = branched_examples(layout, [INTERVIEW], 500)
    assert isinstance(whole, BranchedExample) and len(whole.branches) == 3
    # what is shared is the longest that can be: the branches begin differently
    assert len({branch.ids[0] for branch in whole.branches}) > 1
    for example, branch in zip(apart, whole.branches, strict=True):
        assert whole.trunk.ids + branch.ids == example.ids
        assert whole.trunk.targets + branch.targets == example.targets
    assert whole.supervised == sum(e.supervised for e in apart) - 2 * whole.trunk.supervised
    assert branched_examples(layout, [OTHER], 500) == dialogue_examples(layout, [OTHER], 500)
    # what does not fit into a row together stays apart
    assert branched_examples(layout, [INTERVIEW], len(whole.ids) - 1) == apart


def test_a_row_with_branches_is_worth_what_separate_runs_are(chat_model, layout):
    trees = branched_examples(layout, [INTERVIEW, OTHER], 500)
    apart = dialogue_examples(layout, [INTERVIEW, OTHER], 500)
    with torch.no_grad():
        together, count = summed_loss(chat_model, collate([trees]))
        each = [summed_loss(chat_model, collate([[example]]))[0].item() for example in apart]
        (trunk, _), *_ = ((e.trunk, e) for e in trees if isinstance(e, BranchedExample))
        alone, learnt = summed_loss(chat_model, collate([[trunk]]))
    assert together.item() == pytest.approx(sum(each) - 2 * alone.item(), rel=1e-4)
    assert count == sum(e.supervised for e in apart) - 2 * learnt


def test_wrong_candidates_count_where_they_differ_first(chat_model, layout):
    examples = branched_examples(layout, [INTERVIEW], 500, num_wrong=1)
    weightless, batch = collate([examples]), collate([examples], difference_weight=2.0)
    assert "differences" not in weightless and len(batch["differences"]) == 3
    expected = 0.0
    for history, candidates in INTERVIEW.utterances:
        prompt = build_prompt(layout, Persona("", PERSONA), list(history), 500).ids
        wrong, right = (reply_ids(layout, text) for text in candidates)
        said = os.path.commonprefix([wrong, right])
        ids = [right[len(said)], wrong[len(said)]]
        with torch.no_grad():
            logits = chat_model(torch.tensor([prompt + said])).logits[0, -1]
        expected -= logits[ids].log_softmax(-1)[0].item()
    with torch.no_grad():
        plain, weighted = (summed_loss(chat_model, b)[0].item() for b in (weightless, batch))
    assert weighted - plain == pytest.approx(2 * expected, rel=1e-4)


def test_the_right_one_of_yes_and_no_is_learnt(chat_model, layout, tmp_path):
    """The same question to two personas: what is learnt is the sentence's answer."""
    pair = [
        Dialogue((line,), (Utterance(("any pets?",), (wrong, right)),))
        for line, right, wrong in (
            ("i have a cat.", "yes, a cat.", "no, not me."),
            ("i sell shoes.", "no, not me.", "yes, a cat."),
        )
    ]
    examples = branched_examples(layout, pair, 500, num_wrong=1)

    def choosing(model) -> float:
        with torch.no_grad():
            one, none = (
                summed_loss(model, collate([examples], difference_weight=w))[0].item()
                for w in (1.0, 0.0)
            )
        return one - none

    model = copy.deepcopy(chat_model)
    before = choosing(model)
    train_sft(model, examples, [], tmp_path, settings(epochs=30, first_difference=3.0))
    assert choosing(model.eval()) < 0.3 * before


def test_negatives_and_first_differences_are_told_to_be_alternatives():
    with pytest.raises(UserError, match="--negatives and --first-difference do not go together"):
        settings(negatives=2, first_difference=1.0)


@pytest.mark.parametrize("name", [*SHARED, *REFUSED])
def test_a_model_that_reads_no_branches_reads_conversations_apart(name):
    """Whatever the architecture: what it is given costs what separate runs cost, or the model is refused."""
    torch.manual_seed(0)
    model = build((SHARED | REFUSED)[name]).eval()
    plain = copy.deepcopy(model)
    draw = random.Random(1)
    head = [draw.randrange(5, 300) for _ in range(30)]
    apart = [
        Example([*head, *tail], None, [IGNORED] * 30 + [*tail[1:], 2])
        for tail in ([draw.randrange(5, 300) for _ in range(12)] for _ in range(4))
    ]
    (tree,) = branched(apart, 500)
    assert isinstance(tree, BranchedExample) and tree.apart() == apart
    try:
        examples = set_up_attention(model, [tree], settings(), torch.device("cpu"))
    except UserError:
        assert name == "gpt" or name in REFUSED
        return
    assert examples == [tree] if name in SHARED else examples in ([tree], apart)
    with torch.no_grad():
        together = summed_loss(model, collate([examples]))[0].item()
        expected = sum(summed_loss(plain, collate([[example]]))[0].item() for example in apart)
    assert together == pytest.approx(expected, rel=1e-4)


def test_negatives_are_refused_for_a_model_that_reads_no_branches():
    example = Example([*range(5, 45)], None, [*range(6, 45), 2])
    ranked = RankedExample(example, [1], [[[7, 2], [9, 2]]], [5, 6])
    with pytest.raises(UserError, match="^gpt_neo models cannot be trained with --negatives; "):
        set_up_attention(build(REFUSED["gpt_neo"]), [ranked], settings(), torch.device("cpu"))
