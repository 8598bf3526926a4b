"""Makes dialogues of what visitors really type, "hi", "lol", "why?", answered from the persona and in its own voice.

Run: `python -m train.everyday --count 1500 --seed 1 --out everyday.json`, then `python -m train.finetune --data everyday.json ..`

Facts (the files of everyday_templates.FACTS), messages (everyday_messages.txt) and voices (everyday_voices.txt) are written
for this project. A reply's wrong candidates contradict the persona: the same reply said by another persona or with other values.
"""

import random
from collections import Counter
from collections.abc import Sequence

from train.data import questions
from train.data.everyday_contradictions import contradictions
from train.data.everyday_personas import Personas
from train.data.everyday_speaker import FOLLOW_UPS, Known, Speaker
from train.data.everyday_templates import ASKS_BACK, Message, read_messages

ASKED_OFTEN = (
    "howareyou day now who work likework notjob isjob human insult family kin nameless ageless hobbyless "
    "compliment bored joke sad iam good gibberish weather meet andyou thanks petless kidless spouseless"
).split()

Made = tuple[str, str, list[str]]  # message, reply, wrong replies


class Maker:
    """Draws dialogues from one seed; counts replies, so that none is learnt by heart."""

    def __init__(self, seed: int, often: int, personas: Sequence[Sequence[str]] = ()):
        self.draw = random.Random(seed)
        self.personas = Personas(self.draw, personas)
        self.messages = read_messages()
        self.often = often
        self.counts: Counter[str] = Counter()
        self.others = [self.personas.speaker() for _ in range(30)]

    def dialogue(self) -> tuple[list[str], list[list[str]], list[str]]:
        """(persona sentences, wrong candidates of each reply, turns)."""
        speaker, draw = self.personas.speaker(), self.draw
        persona = list(dict.fromkeys(k.line for k in speaker.known))
        if speaker.voice:
            persona.insert(draw.randrange(len(persona) + 1), draw.choice(speaker.voice.lines))
        turns: list[str] = []
        wrong: list[list[str]] = []
        plan = self._plan()
        named = False
        for message in plan:
            asked_back = bool(turns) and turns[-1].endswith("?")
            if asked_back and draw.random() < 0.5:
                message = draw.choice(["yes", "no", "iam"])
            if not named and speaker.can("itsname") and draw.random() < 0.5:
                message, named = "itsname", True
            made = None
            if message == "question" or not speaker.can(message):
                made, message = self.ask(speaker), "ok"
            made = made or self.exchange(speaker, self.messages[message])
            if made:
                said, reply, false = made
                ends = message in ("bye", "thanks")
                if "?" not in reply and not ends and draw.random() < 0.26:
                    if not (speaker.voice and speaker.voice.name == "curt"):
                        reply += f" {draw.choice(ASKS_BACK)}"
                self.counts[reply] += 1
                turns += [said, reply]
                wrong.append(false)
        return persona, wrong, turns

    def _plan(self) -> list[str]:
        draw = self.draw
        plan = ["greeting"] if draw.random() < 0.8 else []
        for _ in range(3 + draw.randrange(5)):
            kind = draw.random()
            if kind < 0.38:
                plan.append("question")
            elif kind < 0.65 and plan:
                plan.append(draw.choice(list(FOLLOW_UPS)))
            else:
                plan.append(draw.choice(ASKED_OFTEN))
        if draw.random() < 0.45:
            plan.append("bye")
        return plan

    def ask(self, speaker: Speaker) -> Made | None:
        """(question, right answer, contradicting answers) about one fact; None when all were asked."""
        draw = self.draw
        blocks = [
            (known, block)
            for known in speaker.known
            for block in known.fact.blocks
            if (known.line, block.questions[0]) not in speaker.said
        ]
        if not blocks:
            return None
        known, block = draw.choice(blocks)
        speaker.said.add((known.line, block.questions[0]))
        asked = draw.choice(block.questions)
        answers = [a for a in block.answers if self.counts[known.fill(a)] < self.often]
        if not answers:
            return None
        draw.shuffle(answers)
        curt = speaker.voice and speaker.voice.name == "curt"
        answer = min(answers, key=len) if curt else answers[0]
        reply = known.fill(answer)
        speaker.last = known
        if known.fact.more and not curt and draw.random() < 0.3:
            tail = known.fill(draw.choice(known.fact.more))
            speaker.said.add(tail)
            reply = f"{reply} {tail}" if reply[-1] in ".!?" else f"{reply}. {tail}"
        false = self.wrong_answers(speaker, known, asked, answer)
        voiced = speaker.speak(reply)
        return typed(draw, known.fill(asked)), voiced, [speaker.speak(text) for text in false]

    def wrong_answers(self, speaker: Speaker, known: Known, asked: str, answer: str) -> list[str]:
        """What contradicts the fact or speaks of another one; `asked` and `answer` still have their {slots}."""
        siblings = [
            f for f in self.personas.facts if f.topic == known.fact.topic and f is not known.fact
        ]
        other_answers = [
            self.personas.known_of(fact).fill(text)
            for fact in siblings
            for block in fact.blocks
            if asked in block.questions
            for text in block.answers
        ]
        others = [
            k.line
            for k in speaker.known
            if k.line != known.line and asked not in {q for b in k.fact.blocks for q in b.questions}
        ]
        return contradictions(self.draw, known, asked, answer, other_answers, others)

    def exchange(self, speaker: Speaker, message: Message) -> Made | None:
        """(message as typed, reply, the same said by others); None when nothing fits."""
        draw = self.draw
        before = speaker.last
        for _ in range(12):
            patterns, own = message.replies, False
            if speaker.voice and message.name in speaker.voice.whole and draw.random() < 0.75:
                patterns, own = speaker.voice.whole[message.name], True
            pattern = draw.choice(patterns)
            if speaker.voice and speaker.voice.name == "curt" and not own:
                pattern = min(draw.sample(patterns, min(3, len(patterns))), key=len)
            speaker.last = before
            text = speaker.render(pattern)
            if not text:
                continue
            reply = speaker.voice.swap(text) if own and speaker.voice else speaker.speak(text)
            if self.counts[reply] < self.often and reply not in speaker.said:
                speaker.said |= {reply, *speaker.used}
                return self._asked(speaker, message), reply, self._others(pattern, reply)
        speaker.last = before
        return None

    def _asked(self, speaker: Speaker, message: Message) -> str:
        """One wording of the message, about this core or another one where it asks for that."""
        text = self.draw.choice(message.texts)
        if "{" not in text:
            return typed(self.draw, text)
        assert speaker.core  # Speaker.can has asked for it
        mine = speaker.core.fact
        other = self.draw.choice(
            [f for f in self.personas.facts if f.where and f.where != mine.where]
        )
        return text.format(other=other.one, there=other.where, mine=mine.one, here=mine.where)

    def _others(self, pattern: str, reply: str) -> list[str]:
        """The same pattern as other personas would fill it."""
        wrong: list[str] = []
        for other in self.draw.sample(self.others, 6):
            other.last, other.said = None, set()
            text = other.render(pattern)
            if text and text != reply and "{" in pattern and len(wrong) < 2:
                wrong.append(text)
        return wrong


def typed(draw: random.Random, text: str) -> str:
    """A message as people type: one in four begins with a capital, one in eight has a letter out, doubled or swapped."""
    if draw.random() < 0.25:
        text = text.capitalize() if draw.random() < 0.85 else text.upper()
    if draw.random() > 0.12 or len(text) < 5:
        return text
    at = draw.randrange(1, len(text) - 2)
    return draw.choice(
        [
            text[:at] + text[at + 1 :],
            text[:at] + text[at] + text[at:],
            text[:at] + text[at + 1] + text[at] + text[at + 2 :],
            text.rstrip("?!."),
        ]
    )


def make_dialogues(count: int, seed: int = 0, personas: Sequence[Sequence[str]] = ()) -> list[dict]:
    """`count` dialogues in the layout of Persona-Chat; the same count, seed and personas give the same ones.

    Half of them speak as one of the `personas`, where there are some.
    """
    maker = Maker(seed, max(3, count // 150), personas)
    made = [maker.dialogue() for _ in range(count)]
    replies = sorted({reply for _, _, turns in made for reply in turns[1::2]})
    return [
        {
            "personality": persona,
            "utterances": [
                {
                    "candidates": [
                        *dict.fromkeys(text for text in false if text != turns[k]),
                        questions.another(maker.draw, replies, turns[k]),
                        turns[k],
                    ],
                    "history": turns[:k],
                }
                for k, false in zip(range(1, len(turns), 2), wrong, strict=True)
            ],
        }
        for persona, wrong, turns in made
    ]
