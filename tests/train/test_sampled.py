"""Replies that a model drew, ranked against made answers: contradictions are refused, right ones may be learnt.

Run: `python -m pytest tests/train/test_sampled.py`
"""

import random

import pytest

from train.data.dialogues import Dialogue, Utterance
from train.metrics.sampled import rank, rank_dialogue

PERSONA = ("i am 33.", "i burn water.", "i keep bees.")
AGE = Utterance(("how old are you?",), ("just 58.", "i like it.", "just 33."))
COOK = Utterance(("can you cook?",), ("yes, a lot.", "no, i burn everything."))
HELLO = Utterance(("hi",), ("hi! i sell shoes.", "hi! i keep bees."))


@pytest.mark.parametrize(
    "turn, reply, value",
    [
        (AGE, "i am 33 years old.", 1),
        (AGE, "i am 58.", -1),
        (AGE, "i don't know.", 0),
        (COOK, "yes, i love to cook.", -1),
        (COOK, "no, not at all.", 1),
        (HELLO, "hello, the bees are loud today.", 1),
        (HELLO, "hello, i sell things.", -1),
        (HELLO, "hello, how are you?", 0),
    ],
)
def test_rules_tell_right_from_wrong(turn, reply, value):
    assert rank(reply, PERSONA, turn) == value


def test_wrong_replies_become_candidates_and_right_ones_are_learnt():
    replies = ["i am 33 now.", "i am 58.", "how are you?"]
    dialogue = Dialogue(
        PERSONA, (AGE, Utterance((*AGE.history, "just 33.", "hi"), HELLO.candidates))
    )
    heard = []

    def sample(turns):
        heard.append(tuple(turns))
        return replies

    learnt = set()
    for seed in range(20):
        first, second = rank_dialogue(dialogue, sample, random.Random(seed))["utterances"]
        assert first["candidates"][:-1] == ["i am 58.", "how are you?", "just 58.", "i like it."]
        learnt.add(first["candidates"][-1])
        # the dialogue goes on from what was learnt
        assert second["history"] == ["how old are you?", first["candidates"][-1], "hi"]
    assert learnt == {"just 33.", "i am 33 now."}
    assert {len(turns) for turns in heard} == {1, 3}
