"""The made small talk: answers come from the persona, nothing held out is taught, and no reply is learnt by heart.

Run: `python -m pytest tests/train/test_everyday.py`
"""

import json
import random
import re
from collections import Counter

import pytest

from persona_bot.persona import load_presets
from train.data.dialogues import read_dialogues
from train.data.everyday import Maker, make_dialogues
from train.data.everyday_contradictions import AGREES, DENIES, contradictions
from train.data.everyday_speaker import Known, Speaker
from train.data.everyday_templates import FACTS, read_messages, read_voices
from train.data.held_out import held_out_sentences
from train.data.line_questions import fact_of
from train.data.templates import read_facts, read_slots
from train.everyday import main
from train.metrics.text import distinct_2, words

DIALOGUES = make_dialogues(600, seed=4)
REPLIES = [u["candidates"][-1] for d in DIALOGUES for u in d["utterances"]]
SLOTS = {"line", "another", "who", "one", "doing", "doing2", "where", "more", "why"}
SLOTS |= {"name", "pet", "animal"}


def test_every_slot_of_every_template_can_be_filled():
    values = read_slots("question_templates.txt")
    facts, messages, voices = read_facts(FACTS), read_messages(), read_voices()
    assert len([fact for fact in facts if fact.topic == "trade"]) >= 40
    assert len(messages) >= 30 and len(voices) >= 10
    for fact in facts:
        assert all(len(values[slot]) >= 4 for slot in fact.slots), fact.lines
        assert all(block.questions and block.answers for block in fact.blocks), fact.lines
    patterns = [p for m in messages.values() for p in m.replies]
    patterns += [p for voice in voices for whole in voice.whole.values() for p in whole]
    assert {s for p in patterns for s in re.findall(r"{(\w+)}", p)} == SLOTS | {"kin"}


def test_no_slot_and_no_voice_mark_is_left_in_a_reply():
    texts = [*REPLIES, *(u["history"][-1] for d in DIALOGUES for u in d["utterances"])]
    assert [text for text in texts if re.search(r"[{}|]", text)] == []
    assert all(text == text.strip() and text for text in texts)


def test_replies_are_various_short_and_seldom_ask_back():
    assert Counter(REPLIES).most_common(1)[0][1] <= 4
    assert distinct_2(random.Random(0).sample(REPLIES, 300)) > 0.55
    assert 7 <= sum(len(words(reply)) for reply in REPLIES) / len(REPLIES) <= 15
    assert 0.10 <= sum(reply.endswith("?") for reply in REPLIES) / len(REPLIES) <= 0.25


def test_numbers_and_names_asked_are_those_of_the_persona():
    asked = 0
    for dialogue in DIALOGUES:
        persona = " ".join(dialogue["personality"])
        for utterance in dialogue["utterances"]:
            if re.fullmatch(
                r"(how old are you\?|age\?|what's your age\?)", utterance["history"][-1]
            ):
                if known := re.search(r"(?:and i am|^i am|i turned|just turned) (\d+)\b", persona):
                    asked += 1
                    assert known[1] in utterance["candidates"][-1]
                    assert known[1] not in utterance["candidates"][0]
    assert asked > 10


def test_robots_say_that_they_are_and_people_that_they_are_not():
    maker = Maker(3, often=1000)
    for _ in range(60):
        speaker = maker.personas.speaker()
        speaker.voice = None
        robot = any("robot" in known.line for known in speaker.known)
        beings = "being" in speaker.topics
        made = maker.exchange(speaker, maker.messages["human"])
        assert speaker.can("human") != beings
        if not beings and made:
            assert not re.search(r"\byes\b|\bi am a (ro)?bot\b", made[1])
        if robot:
            blocks = [b for k in speaker.known for b in k.fact.blocks]
            asked = next(b for b in blocks if "are you a robot?" in b.questions)
            assert all(re.search(r"yes|robot|not human", a) for a in asked.answers)


def test_half_of_the_greetings_tell_something_of_the_persona():
    maker = Maker(5, often=1000)
    told = 0
    for _ in range(300):
        speaker = maker.personas.speaker()
        _, reply, _ = maker.exchange(speaker, maker.messages["greeting"])
        told += bool(speaker.last) or any(k.line in reply for k in speaker.known)
    assert told / 300 > 0.7


def test_nothing_that_is_asked_or_shown_is_taught():
    held_out = held_out_sentences()
    assert {s for p in load_presets().values() for s in p.sentences} < held_out
    # a preset names its voice as training does: that is what the line is for
    voices = {line for voice in read_voices() for line in voice.lines}
    taught = {s for d in make_dialogues(1_500, seed=8) for s in d["personality"]}
    assert not (held_out - voices) & taught


def test_wrong_candidates_are_not_the_right_one():
    for dialogue in DIALOGUES:
        for utterance in dialogue["utterances"]:
            *wrong, right = utterance["candidates"]
            assert wrong and right not in wrong


def test_the_command_writes_what_training_reads(tmp_path, monkeypatch, capsys):
    out = tmp_path / "everyday.json"
    monkeypatch.setattr("sys.argv", ["everyday", "--count", "40", "--seed", "9", "--out", str(out)])
    main()
    dialogues = read_dialogues(out)
    assert (
        capsys.readouterr().out
        == f"40 dialogues, {sum(len(d.utterances) for d in dialogues)} replies: {out}\n"
    )
    assert len(dialogues) == 40 and json.loads(out.read_text()) == make_dialogues(40, seed=9)


@pytest.mark.parametrize(
    "asked, answer, wrong",
    [
        ("how old are you?", "just {age}.", [{"just 58."}]),
        ("are you {other_age}?", "no, {age}.", [{"yes, 58.", "58, yes.", "yes. 58."}, {"no, 58."}]),
        ("are you grown up?", "yes, i am.", [set(DENIES)]),
        ("are you a child?", "no, i work.", [set(AGREES)]),
    ],
)
def test_wrong_answers_contradict_the_right_one(asked, answer, wrong):
    fact = next(f for f in read_facts(FACTS) if f.topic == "age")
    known = Known(fact, "i am 33.", {"age": "33", "other_age": "58"})
    made = contradictions(random.Random(1), known, asked, answer, ["i am nine."])
    assert made[-1] == "i am nine." and len(made) == len(wrong) + 1
    assert all(text in allowed for text, allowed in zip(made, wrong, strict=False))


def test_a_true_sentence_that_is_beside_the_point_is_a_wrong_answer():
    fact = next(f for f in read_facts(FACTS) if f.topic == "age")
    known = Known(fact, "i am 33.", {"age": "33", "other_age": "58"})
    draw, other = random.Random(1), ["i keep bees."]
    asked = contradictions(draw, known, "how old are you?", "just {age}.", [], other)
    assert sorted(asked) == ["i keep bees.", "just 58."]
    denied = contradictions(draw, known, "are you {other_age}?", "no, {age}.", [], other)
    assert len(denied) == 3 and "yes, i keep bees." in denied
    # any sentence answers this one
    assert contradictions(draw, known, "tell me about you", "just {age}.", [], other) == [
        "just 58."
    ]


@pytest.mark.parametrize(
    "line, question, answer",
    [
        ("i work for a tea company.", "where do you work?", "for a tea company."),
        ("i am a retired diver.", "are you a retired diver?", "yes, a retired diver."),
        ("i love to whistle.", "do you like to whistle?", "yes, i love to whistle."),
        ("i can't stand my boss.", "do you like your boss?", "no, i can't stand my boss."),
        ("my favorite tree is the oak.", "what is your favorite tree?", "the oak."),
        ("i have two ferrets.", "do you have ferrets?", "yes, two ferrets."),
        ("i cannot whistle.", "can you whistle?", "no, i can't whistle."),
        ("i own an old dog named tuck.", "what is your old dog called?", "tuck."),
        ("i own an old dog.", "do you have any pets?", "yes, an old dog."),
        ("i have two grown sons.", "do you have any children?", "yes, two grown sons."),
        ("my twin girls sing.", "do you have kids?", "of course, my twin girls."),
        ("i have six sisters and a cat.", "are you an only child?", "no, i have six sisters."),
        ("i'm 81 years old.", "how old are you?", "i am 81."),
        ("i have twelve teapots.", "how many teapots do you have?", "twelve."),
        ("i repair old radios.", "do you repair old radios?", "yes, i repair old radios."),
        ("i do not eat meat.", "do you ever eat meat?", "no, i don't eat meat."),
        ("i used to be a monk.", "are you still a monk?", "not anymore."),
    ],
)
def test_a_sentence_that_people_wrote_is_asked_by_its_grammar(line, question, answer):
    blocks = [b for b in fact_of(line).blocks if question in b.questions]
    assert len(blocks) == 1 and answer in blocks[0].answers


def test_a_sentence_that_people_wrote_has_reasons():
    assert fact_of("i work for a tea company.").why
    assert "something happened when i was small." in fact_of("i am afraid of owls.").why
    assert fact_of("the moon owes me money.").why == ()


def test_the_animal_is_called_by_its_name_and_not_by_its_owners():
    """ "do you have pets?" "yes, a dog named rex." "what is it called?" "rex." """
    asked = set(read_messages()["itsname"].texts)
    replies = {
        turn["candidates"][-1]
        for dialogue in make_dialogues(300, 3, [["i am called olga.", "i have a dog named rex."]])
        if "i am called olga." in dialogue["personality"]
        for turn in dialogue["utterances"]
        if turn["history"][-1] in asked
    }
    assert len(replies) > 5
    assert all("rex" in reply and "olga" not in reply for reply in replies)


@pytest.mark.parametrize(
    "line, message", [("we met in church.", "kidless"), ("my boys play chess.", "spouseless")]
)
def test_what_a_persona_does_not_tell_can_be_asked(line, message):
    known = [Known(fact_of(line), line, {})]
    speaker = Speaker(random.Random(1), known, None)
    able = {name for name in ("petless", "kidless", "spouseless") if speaker.can(name)}
    assert message in able and "petless" in able
    assert ("kidless" in able) is ("boys" not in line)


def test_a_sentence_that_no_rule_reads_is_a_fact_without_questions():
    assert fact_of("the moon owes me money.").blocks == ()


def test_written_personas_speak_in_half_of_the_dialogues():
    written = [["i am a diver.", "the moon owes me money."], ["i {draw} slots."]]
    made = make_dialogues(100, seed=2, personas=written)
    speaking = [d for d in made if set(written[0]) <= set(d["personality"])]
    assert 30 <= len(speaking) <= 70
    assert not any("slots" in sentence for d in made for sentence in d["personality"])
    assert any("moon" in u["candidates"][-1] for d in speaking for u in d["utterances"])
