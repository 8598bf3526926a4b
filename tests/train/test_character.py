"""What counts as in character, and whether a classifier can tell voices apart.

Run: `python -m pytest tests/train/test_character.py`
"""

import json
from collections import Counter

import pytest

from train.metrics.character import asks_back, content_words, tells_of, voice_accuracy
from train.metrics.character_eval import HERE
from train.metrics.text import probe_passes


@pytest.mark.parametrize(
    "reply, told",
    [
        ("just back from the bakery!", True),
        ("i have been baking all night.", True),
        ("hello! how are you today?", False),
        ("i love it, and so do you.", False),
        ("my two cats say hi.", True),
    ],
)
def test_a_reply_tells_of_a_persona_by_its_content_words(reply, told):
    assert (
        tells_of(reply, ["i own a bakery.", "i love bread, i bake it.", "my cat is old."]) is told
    )


def test_words_that_say_nothing_do_not_count():
    assert content_words("i am very good at it, you know. really!") == set()


@pytest.mark.parametrize(
    "reply, asks",
    [
        ("fine. and you?", True),
        ('she said "why?"', True),
        ("why? because i can.", False),
        ("no.", False),
    ],
)
def test_asking_back_is_ending_with_a_question(reply, asks):
    assert asks_back(reply) is asks


def test_topics_are_whole_words():
    assert probe_passes("You're welcome, any time!", ["any time"])
    assert not probe_passes("byebye", ["bye"])


def test_voices_are_told_apart_where_they_differ_and_not_where_they_do_not():
    pirate = [f"arr, ahoy matey number {k}!" for k in ("one", "two", "three", "four")]
    lord = [f"good day to you, dear guest {k}." for k in ("one", "two", "three", "four")]
    assert voice_accuracy([pirate, lord]) == 1.0
    assert voice_accuracy([["hi there."] * 4, ["hi there."] * 4]) <= 0.5


def test_contradiction_questions_are_balanced_and_can_be_answered():
    entries = json.loads((HERE / "contradiction_questions.json").read_text(encoding="utf-8"))
    assert len(entries) >= 120
    assert set(Counter(entry["kind"] for entry in entries).values()) == {18}
    assert len({(*e["persona"], e["question"]) for e in entries}) == len(entries)
    for entry in entries:
        accept, refuse = entry["accept"], entry.get("refuse", [])
        assert any(probe_passes(word, accept, refuse) for word in accept), entry
        assert not any(probe_passes(word, accept, refuse) for word in refuse), entry
