"""Makes dialogues in which a partner asks about the persona's sentences and gets the right answer; greetings and goodbyes too.

Run: `python -m train.questions --count 800 --out questions.json`, then `python -m train.finetune --data questions.json ..`

People in Persona-Chat talk past their personas; someone who chats with one asks it straight: "where do you work?". The facts,
questions and answers are in the three files of TEMPLATES, all written for this project. The same seed makes the same dialogues.
"""

import random
from collections.abc import Mapping, Sequence

from train.data.held_out import held_out_sentences
from train.data.templates import Fact, read_facts, read_slots, slot_names

TEMPLATES = ("question_templates.txt", "yes_no_facts.txt", "relation_facts.txt")
GREETINGS = [
    "hi, how are you?",
    "hello!",
    "hey there.",
    "good evening, how is it going?",
    "hi! how was your day?",
    "hello, nice to meet you.",
]
GREETED = [
    "hi, i am doing great, how are you?",
    "hello! i'm good, thanks. how about you?",
    "hey, i'm fine. what are you up to today?",
    "hi there! it was a good day. how was yours?",
    "i'm well, thank you. tell me about yourself!",
]
THANKS = [
    "thank you!",
    "thanks for telling me.",
    "oh thanks, that is nice of you.",
    "that's interesting, thanks.",
]
THANKED = [
    "you are welcome!",
    "sure, any time. what about you?",
    "you're welcome, it is fun to talk about it.",
    "no problem at all!",
]
GOODBYES = [
    "bye!",
    "i have to go now, bye.",
    "goodbye, it was nice to meet you.",
    "well, good night!",
    "ok, talk to you later.",
    "thanks, bye!",
]
GOODBYE = [
    "bye! it was nice talking to you.",
    "goodbye, have a great day!",
    "good night, take care!",
    "it was nice to meet you too, bye!",
    "see you later, take care of yourself!",
    "ok, talk to you soon. bye!",
]
ASKS_BACK = [
    "what about you?",
    "how about you?",
    "and you?",
    "do you?",
    "what is yours?",
    "tell me about you.",
]
REACTIONS = [
    "oh nice.",
    "cool.",
    "i see.",
    "wow!",
    "that sounds fun.",
    "really?",
    "same here.",
    "ok.",
    "haha.",
]


def make_dialogue(
    draw: random.Random, slots: dict[str, list[str]], facts: list[Fact]
) -> tuple[list[str], list[str]]:
    """(persona sentences, turns; the partner begins and the persona has the last word)."""
    chosen: dict[str, Fact] = {}
    for fact in draw.sample(facts, 12):
        if len(chosen) < 3 + draw.randrange(3):
            chosen.setdefault(fact.topic, fact)
    persona, asked = [], []
    for fact in chosen.values():
        line = draw.choice(fact.lines)
        texts = fact.lines + [text for block in fact.blocks for part in block for text in part]
        filled = draw_values(draw, slots, slot_names(texts))
        persona.append(line.format(**filled))
        for questions, answers in draw.sample(
            fact.blocks, min(len(fact.blocks), 1 + draw.randrange(2))
        ):
            asked.append(
                (draw.choice(questions).format(**filled), draw.choice(answers).format(**filled))
            )
    draw.shuffle(persona)
    draw.shuffle(asked)
    turns = [draw.choice(GREETINGS), draw.choice(GREETED)] if draw.random() < 0.5 else []
    for question, answer in asked[:5]:
        before = f"{draw.choice(REACTIONS)} " if turns and draw.random() < 0.3 else ""
        after = f" {draw.choice(ASKS_BACK)}" if draw.random() < 0.25 and "?" not in answer else ""
        turns += [before + question, answer + after]
    if draw.random() < 0.2:
        turns += [draw.choice(THANKS), draw.choice(THANKED)]
    if draw.random() < 0.4:
        turns += [draw.choice(GOODBYES), draw.choice(GOODBYE)]
    return persona, turns


def draw_values(
    draw: random.Random, slots: Mapping[str, Sequence[str]], names: Sequence[str]
) -> dict[str, str]:
    """A value for each slot x, and another one for {other_x}."""
    values: dict[str, str] = {}
    for name in names:
        values[name], values[f"other_{name}"] = draw.sample(slots[name], 2)
    return values


def make_dialogues(count: int, seed: int = 0) -> list[dict]:
    """`count` dialogues in the layout of Persona-Chat; each reply has two wrong candidates, a reply of another dialogue and
    one of the same: right at another time, and beside the point here."""
    draw = random.Random(seed)
    slots, facts = read_slots(TEMPLATES[0]), read_facts(TEMPLATES)
    held_out = held_out_sentences()
    drawn = (make_dialogue(draw, slots, facts) for _ in iter(int, 1))
    # or what evaluate asks would be learnt by heart
    unseen = (dialogue for dialogue in drawn if not held_out & set(dialogue[0]))
    made = [next(unseen) for _ in range(count)]
    replies = sorted({reply for _, turns in made for reply in turns[1::2]})
    return [
        {
            "personality": persona,
            "utterances": [
                {"candidates": [*_wrong(draw, replies, turns, k), turns[k]], "history": turns[:k]}
                for k in range(1, len(turns), 2)
            ],
        }
        for persona, turns in made
    ]


def _wrong(draw: random.Random, replies: list[str], turns: list[str], k: int) -> list[str]:
    """Wrong candidates for the reply at `k`: one of another dialogue, and another reply of this one, if it has any."""
    own = [turn for turn in turns[1::2] if turn != turns[k]]
    return [another(draw, replies, turns[k]), *draw.sample(own, min(1, len(own)))]


def another(draw: random.Random, replies: list[str], gold: str) -> str:
    """One of the replies that is not this one."""
    return next(reply for reply in iter(lambda: draw.choice(replies), None) if reply != gold)
