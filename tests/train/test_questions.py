"""The made dialogues: right answers, nothing of the probes, reproducible, and readable by the training.

Run: `python -m pytest tests/train/test_questions.py`
"""

import json
import random
import re

from train.data.dialogues import read_dialogues
from train.data.held_out import held_out_sentences
from train.data.questions import TEMPLATES, make_dialogue, make_dialogues
from train.data.templates import read_facts, read_slots
from train.questions import main


def test_every_slot_is_filled_and_every_template_can_be_drawn():
    slots, facts = read_slots(TEMPLATES[0]), read_facts(TEMPLATES)
    assert len(facts) > 80 and len({fact.topic for fact in facts}) > 40
    for fact in facts:
        assert fact.blocks and all(questions and answers for questions, answers in fact.blocks), (
            fact.lines
        )
        for name in re.findall(
            r"{(\w+)}",
            " ".join([*fact.lines, *(t for block in fact.blocks for part in block for t in part)]),
        ):
            assert len(slots[name.removeprefix("other_")]) >= 4, name


def test_answers_tell_what_the_persona_says():
    slots, facts = read_slots(TEMPLATES[0]), read_facts(TEMPLATES)
    named = [fact for fact in facts if fact.topic == "name"]
    for seed in range(50):
        persona, turns = make_dialogue(random.Random(seed), slots, named * 12)
        name = next(value for value in slots["name"] if re.search(rf"\b{value}\b", persona[0]))
        answers = [
            reply
            for question, reply in zip(turns[::2], turns[1::2], strict=True)
            if "name" in question or "who are" in question
        ]
        assert all(name in answer for answer in answers)


def test_facts_of_one_topic_never_meet():
    facts = read_facts(TEMPLATES)
    patterns = {fact.topic: [] for fact in facts}
    for fact in facts:
        patterns[fact.topic] += [
            re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(line))) for line in fact.lines
        ]
    for number, dialogue in enumerate(make_dialogues(200, seed=3)):
        partners = [
            s
            for s in dialogue["personality"]
            if any(pattern.fullmatch(s) for pattern in patterns["partner"])
        ]
        assert len(partners) <= 1, (number, partners)


def test_a_relative_keeps_its_trade_and_its_town():
    """Of "my aunt is a judge." the aunt is asked, and "are you a judge?" is denied."""
    files = ("question_templates.txt", "relation_facts.txt")
    slots, facts = read_slots(files[0]), read_facts(files)
    of_others = [fact for fact in facts if fact.topic in ("relation work", "relation town")]
    assert len(of_others) == 2
    denied = 0
    for seed in range(60):
        persona, turns = make_dialogue(random.Random(seed), slots, of_others * 6)
        for asked, said in zip(turns[::2], turns[1::2], strict=True):
            if asked.startswith(("are you", "do you live in", "so you", "you are")):
                denied += 1
                assert said.startswith(("no", "not me")), (persona, asked, said)
    assert denied > 20


def test_nothing_that_is_asked_is_taught():
    assert not held_out_sentences() & {
        sentence for dialogue in make_dialogues(2_000) for sentence in dialogue["personality"]
    }


def test_the_command_writes_what_training_reads(tmp_path, monkeypatch, capsys):
    out = tmp_path / "questions.json"
    monkeypatch.setattr(
        "sys.argv", ["questions", "--count", "40", "--seed", "9", "--out", str(out)]
    )
    main()
    dialogues = read_dialogues(out)
    assert (
        capsys.readouterr().out
        == f"40 dialogues, {sum(len(d.utterances) for d in dialogues)} replies: {out}\n"
    )
    assert len(dialogues) == 40 and json.loads(out.read_text()) == make_dialogues(40, seed=9)
    assert all(u.candidates[0] != u.candidates[-1] for d in dialogues for u in d.utterances)
