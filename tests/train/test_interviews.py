"""Interviews: facts that contrast, questions asked at one place, and wrong answers that differ where they are wrong.

Run: `python -m pytest tests/train/test_interviews.py`
"""

import json
import random
from collections import Counter, defaultdict

import pytest

from persona_bot.layouts import find_layout
from train import everyday
from train.data.branched import branched_examples
from train.data.dialogues import read_dialogues
from train.data.everyday_contradictions import agrees
from train.data.everyday_templates import CONTRASTS
from train.data.examples import Example
from train.data.held_out import held_out_sentences
from train.data.interviews import is_fair, make_interviews
from train.data.templates import Fact, read_facts


@pytest.fixture
def layout(chat_tokenizer):
    return find_layout(chat_tokenizer)


def asked(fact: Fact) -> set[str]:
    return {question for block in fact.blocks for question in block.questions}


@pytest.mark.parametrize("file", CONTRASTS)
def test_the_same_questions_are_asked_of_contrasting_sentences(file):
    topics = defaultdict(list)
    for fact in read_facts((file,)):
        assert len(fact.lines) >= 3 and all(line[-1] in ".!" for line in fact.lines)
        assert all(q[-1] == "?" for q in asked(fact))
        assert all(len(block.answers) >= 4 for block in fact.blocks), fact.lines
        topics[fact.topic].append(fact)
    assert len(topics) >= 20
    for topic, facts in topics.items():
        assert len(facts) >= 2, topic
        for fact in facts:
            others = set().union(*(asked(other) for other in facts if other is not fact))
            assert len(asked(fact) & others) >= 3, (topic, fact.lines[0])


def test_neither_yes_nor_no_answers_most_questions_of_contrasts():
    said = Counter(
        agrees(answer)
        for fact in read_facts(CONTRASTS)
        for block in fact.blocks
        for answer in block.answers
    )
    assert 0.9 < said[True] / said[False] < 1.1 and said[None] > 1000


def test_nothing_that_is_asked_of_a_model_is_a_contrasting_sentence():
    lines = {line for fact in read_facts(CONTRASTS) for line in fact.lines}
    assert len(lines) > 1400 and not lines & held_out_sentences()


def test_interviews_are_read_and_each_question_is_asked_at_the_same_place(tmp_path, layout, capsys):
    out = tmp_path / "interviews.json"
    everyday.main(["--interviews", "--count", "40", "--seed", "3", "--out", str(out)])
    assert json.loads(out.read_text()) == make_interviews(40, 3) != make_interviews(40, 4)
    interviews = read_dialogues(out)
    assert len(interviews) == 40
    for interview in interviews:
        assert not held_out_sentences() & set(interview.personality)
        beginnings = {u.history[:-1] for u in interview.utterances}
        questions = [u.history[-1].lower() for u in interview.utterances]
        assert len(beginnings) == 1 and len(set(questions)) == len(questions) > 1
        for *wrong, right in (u.candidates for u in interview.utterances):
            assert right not in wrong
    assert {len(i.utterances[0].history) for i in interviews} == {1, 3, 5}
    examples = branched_examples(layout, interviews, 2000, shuffle_persona=random.Random(0))
    assert not any(isinstance(example, Example) for example in examples)


def test_a_wrong_candidate_is_fair_where_its_first_difference_is_what_is_wrong():
    right = ["for a bank.", "i work for a bank.", "yes, a bank."]
    assert is_fair("in a cabin.", "for a bank.", right)
    assert not is_fair("i live in a cabin.", "for a bank.", right)  # "i" is right, too
    assert is_fair("i live in a cabin.", "i work for a bank.", right)
    assert is_fair("no, i don't.", "yes, a bank.", right)
    assert not is_fair("yeah, i live here.", "for a bank.", right)  # as yes is right
    assert is_fair("yes, a cabin.", "yes, a bank.", ["yes, a bank."])
