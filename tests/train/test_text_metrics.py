"""The text metrics against values worked out by hand, and the recall probes against their own persona.

Run: `python -m pytest tests/train/test_text_metrics.py`
"""

import math

import pytest

from persona_bot.text import tidy
from train.metrics.generation_eval import read_probes
from train.metrics.text import (
    CONSTANT_REPLY,
    constant_f1,
    content,
    distinct_2,
    is_hit,
    likelihood_scores,
    persona_cover,
    persona_f1,
    probe_passes,
    repeats,
    repetition,
    reply_scores,
    word_f1,
    word_weights,
    words,
)

BEES = ("i keep bees.", "i live in a barn.")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("hi , i'm ok !", ["hi", ",", "i'm", "ok", "!"]),
        ("Hi, I'm ok!", ["hi", ",", "i'm", "ok", "!"]),
        ("wow ! ! !", ["wow", "!", "!", "!"]),
        ("", []),
    ],
)
def test_words_keep_punctuation_and_ignore_case_and_spacing(text, expected):
    assert words(text) == words(tidy(text)) == expected


def test_content_drops_punctuation_and_articles_as_parlai_does():
    assert content("The cat's a Theory, an (old) one_two!") == [
        "cat",
        "s",
        "theory",
        "old",
        "one",
        "two",
    ]


@pytest.mark.parametrize(
    "reply, gold, expected",
    [
        # shared: i, have; the article is dropped
        ("i have a dog", "i have two dogs", 2 * 2 / (3 + 4)),
        ("Yes, I do!", "yes i do", 1.0),
        ("ha ha ha", "ha ha", 2 * 2 / (3 + 2)),  # a repeated word counts as often as both have it
        ("no", "yes", 0.0),
        ("the", "a", 0.0),
        ("", "", 0.0),
    ],
)
def test_word_f1(reply, gold, expected):
    assert word_f1(reply, gold) == pytest.approx(expected)


def test_likelihood_is_given_per_reply_word_and_character_with_the_end_as_one_more():
    # 4 + 1 and 1 + 1 words, 10 + 1 and 3 + 1 characters
    result = likelihood_scores([6.0, 12.0], ["hi , you !", "yes"])
    assert result["nats_per_reply"] == 9.0
    assert result["nats_per_word"] == pytest.approx(18 / 7)
    assert result["bits_per_character"] == pytest.approx(18 / math.log(2) / 15)


@pytest.mark.parametrize(
    "scores, candidates, hit",
    [
        ([1.0, 2.0, 3.0], ["a", "b", "gold"], True),
        ([1.0, 4.0, 3.0], ["a", "b", "gold"], False),
        # a tie is lost: a model that cannot tell scores nothing
        ([3.0, 1.0, 3.0], ["a", "b", "gold"], False),
        ([3.0, 1.0, 3.0], ["gold", "b", "gold"], True),  # but not against a copy of itself
        ([1.0, 2.0, math.nan], ["a", "b", "gold"], False),
    ],
)
def test_a_hit_is_the_gold_candidate_alone_at_the_top(scores, candidates, hit):
    assert is_hit(scores, candidates) is hit


def test_persona_f1_is_that_of_the_nearest_sentence():
    assert persona_f1("bees, i keep them", BEES) == pytest.approx(2 * 3 / (4 + 3))
    assert persona_f1("i know", BEES) == pytest.approx(2 * 1 / (2 + 3))
    assert persona_f1("hello", BEES) == persona_f1("hello", ()) == 0.0


def test_persona_cover_weighs_shared_words_by_how_rare_they_are():
    weights = word_weights([BEES, ("i like bees.",)])  # three sentences
    assert (
        weights["i"] == 0.0 and weights["keep"] == math.log(3) and weights["bees"] == math.log(1.5)
    )
    assert persona_cover("i keep bees", BEES, weights) == pytest.approx(
        (0 + math.log(3) + math.log(1.5)) / 3
    )
    # the mean is over shared words
    assert persona_cover("keep, keep it", BEES, weights) == pytest.approx(math.log(3))
    # the best sentence counts
    assert persona_cover("in a barn", BEES, weights) == pytest.approx(math.log(3))
    assert persona_cover("hello", BEES, weights) == 0.0


def test_distinct_2_counts_pairs_inside_replies_only():
    assert distinct_2(["i am ok", "i am here"]) == 3 / 4
    assert distinct_2(["hi", "hi", ""]) == 0.0


def test_repetition_is_a_whole_reply_or_three_words_of_an_own_earlier_one():
    earlier = ["I like to swim.", "yes"]
    assert repeats("well, i like to run", earlier)
    assert repeats("Yes!", earlier)
    assert not repeats("do you like to swim", ["to swim is fun", "you do like it"])
    assert not repeats("i like swimming", [])
    assert repetition([["i like to swim", "oh", "i like to run"], ["hello", "hello"]]) == 2 / 5


def test_reply_scores_of_two_replies():
    weights = word_weights([BEES])
    result = reply_scores(
        ["i keep bees!", "what?"],
        ["i keep bees", "no"],
        [BEES, BEES],
        [("what",), ("what",)],
        weights,
    )
    assert result == pytest.approx(
        {
            "word_f1": 50.0,
            "distinct_2": 1.0,
            "unique_replies": 1.0,
            "question_share": 0.5,
            "words_per_reply": 3.0,
            "persona_f1": 50.0,
            "persona_cover": (0 + math.log(2) + math.log(2)) / 3 / 2,
            "wrong_persona_f1": 50.0,
            "wrong_persona_cover": 0.0,
        }
    )


def test_the_same_reply_twice_is_not_unique_whatever_its_spacing():
    result = reply_scores(["hi , you", "Hi, you"], ["a", "b"], [BEES] * 2, [BEES] * 2, {})
    assert result["unique_replies"] == 0.5


def test_a_constant_reply_scores_without_having_understood_anything():
    assert constant_f1([CONSTANT_REPLY, "nothing"]) == 50.0


@pytest.mark.parametrize(
    "reply, passes",
    [
        ("I work for Greenpeace!", True),
        ("at green peace, of course", True),
        ("greenpeaceful", False),
        ("greenpeace? no, i work at a bank", False),
        ("", False),
    ],
)
def test_a_probe_wants_whole_words_and_none_of_the_refused(reply, passes):
    assert probe_passes(reply, ["greenpeace", "green peace"], ["a bank"]) is passes


def test_there_are_enough_probes_and_each_can_be_answered_from_its_persona():
    probes = read_probes()
    assert len(probes) >= 60
    assert len({(probe.persona, probe.question) for probe in probes}) == len(probes)
    for probe in probes:
        assert 3 <= len(probe.persona) <= 5 and probe.question.endswith("?")
        assert not probe_passes(probe.question, probe.accept), (
            f"asking back is no answer: {probe.question}"
        )
        assert not set(probe.accept) & set(probe.refuse)
        answer_words = {word for phrase in probe.accept for word in words(phrase)}
        assert answer_words & {word for sentence in probe.persona for word in words(sentence)}, (
            probe.question
        )
