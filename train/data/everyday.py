"""Makes dialogues of what visitors really type, "hi", "lol", "why?", answered from the persona and in its own voice.

Run: `python -m train.everyday --count 1500 --seed 1 --out everyday.json`, then `python -m train.finetune --data everyday.json ..`

Facts, messages and voices are in everyday_facts.txt, everyday_messages.txt and everyday_voices.txt, all written for this
project. A reply's wrong candidates contradict the persona: the same reply said by another persona or with other values.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence

from persona_bot.persona import random_persona
from persona_bot.pools import POOLS
from train.data import questions
from train.data.everyday_contradictions import contradictions
from train.data.everyday_speaker import FOLLOW_UPS, Known, Speaker
from train.data.everyday_templates import (
    ASKS_BACK,
    Fact,
    Message,
    Voice,
    read_facts,
    read_messages,
    read_voices,
)
from train.data.held_out import held_out_sentences
from train.data.line_questions import fact_of

# topics of question_templates.txt that no topic of everyday_facts.txt speaks of
MORE_TOPICS = {"allergy", "church", "color", "films", "hair", "language", "money", "music"}
MORE_TOPICS |= {"prize", "read", "season", "smoke", "tall", "trip", "tv", "weather"}
MEET_POOLS = {"dream"} | MORE_TOPICS & {"allergy", "hair", "language", "prize", "smoke", "tv"}
ASKED_OFTEN = (
    "howareyou day now who work likework notjob isjob human insult family kin nameless ageless hobbyless "
    "compliment bored joke sad iam good gibberish weather meet andyou thanks"
).split()


Made = tuple[str, str, list[str]]  # message, reply, wrong replies


class Maker:
    """Draws personas and dialogues from one seed; counts replies, so that none is learnt by heart."""

    def __init__(self, seed: int, often: int, personas: Sequence[Sequence[str]] = ()):
        self.draw = random.Random(seed)
        self.slots, asked = questions.read_templates()
        self.facts = read_facts()
        self.facts += [Fact.of_questions(f) for f in asked if f.topic in MORE_TOPICS]
        self.messages, self.voices = read_messages(), read_voices()
        self.held_out = held_out_sentences()
        # by people; braces would be slots
        self.written = [
            p for p in personas if not self.held_out & set(p) and not re.search(r"[{}]", "".join(p))
        ]
        self.often = often
        self.counts: Counter[str] = Counter()
        self.others = [self.speaker() for _ in range(30)]

    def speaker(self) -> Speaker:
        """A persona of three to six sentences, a quarter of them with a line about its voice."""
        draw = self.draw
        if self.written and draw.random() < 0.5:
            return Speaker(draw, self._from_written(draw.choice(self.written)), self._voice())
        from_pools = draw.random() < 0.25
        if from_pools:
            known = self._from_pools()
        else:
            cores = [f for f in self.facts if f.topic in ("trade", "being")]
            being = draw.random() < 0.15
            core = draw.choice([f for f in cores if (f.topic == "being") == being])
            known = [self._known(core)]
        topics = {k.fact.topic for k in known} | {"trade", "being"}
        rest = [
            f
            for f in self.facts
            if f.topic not in topics and (not from_pools or f.topic in MEET_POOLS)
        ]
        for fact in draw.sample(rest, len(rest)):
            if len(known) >= (8 if from_pools else 3) + draw.randrange(4):
                break
            if fact.topic not in {k.fact.topic for k in known}:
                known.append(self._known(fact))
        draw.shuffle(known)
        return Speaker(draw, known, self._voice())

    def _voice(self) -> Voice | None:
        return self.draw.choice(self.voices) if self.draw.random() < 0.3 else None

    def _from_written(self, sentences: Sequence[str]) -> list[Known]:
        """The sentences as they are, now and then with a name or an age where they tell none."""
        known = [Known(fact_of(line), line, {}) for line in sentences]
        for topic, told in (("name", "name|called"), ("age", r"\d\d|years")):
            if self.draw.random() < 0.3 and not re.search(told, " ".join(sentences)):
                known.append(self._known(next(f for f in self.facts if f.topic == topic)))
        self.draw.shuffle(known)
        return known

    def _known(self, fact: Fact) -> Known:
        while True:
            values = {}
            for name in fact.slots:
                values[name], values[f"other_{name}"] = self.draw.sample(self.slots[name], 2)
            line = self.draw.choice(fact.lines).format(**values)
            if line not in self.held_out:
                return Known(fact, line, values)

    def _from_pools(self) -> list[Known]:
        """A random persona as the page draws it: its name and age can be asked, its trade is named."""
        drawn = (random_persona(self.draw.randrange(2**32)) for _ in iter(int, 1))
        persona = next(p for p in drawn if not self.held_out & set(p.sentences))
        given = re.match(r"my name is (.+) and i am (\d+)\.", persona.sentences[0])
        first, trade = persona.name.split(", ", 1)
        known = []
        for number, line in enumerate(persona.sentences):
            if number == 0 and given:
                for topic, value in (("name", given[1]), ("age", given[2])):
                    fact = next(f for f in self.facts if f.topic == topic)
                    other = self.draw.choice([v for v in self.slots[topic] if v != value])
                    values = {name: self.slots[name][0] for name in fact.slots}
                    values |= {topic: value, f"other_{topic}": other}
                    known.append(Known(fact, line, values))
            else:
                who = f"the {trade}" if number == 1 else ""
                topic = (*POOLS, "rest")[min(number - 1, len(POOLS))].removesuffix("s")
                topic = {"hobbie": "hobby", "familie": "family"}.get(topic, topic)
                known.append(Known(Fact(topic, [line], who=who), line, {}))
        return known

    def dialogue(self) -> tuple[list[str], list[list[str]], list[str]]:
        """(persona sentences, wrong candidates of each reply, turns)."""
        speaker, draw = self.speaker(), self.draw
        persona = list(dict.fromkeys(k.line for k in speaker.known))
        if speaker.voice:
            persona.insert(draw.randrange(len(persona) + 1), draw.choice(speaker.voice.lines))
        turns: list[str] = []
        wrong: list[list[str]] = []
        plan = self._plan(speaker)
        for message in plan:
            asked_back = bool(turns) and turns[-1].endswith("?")
            if asked_back and draw.random() < 0.5:
                message = draw.choice(["yes", "no", "iam"])
            made = None
            if message == "question" or not speaker.can(message):
                made, message = self._question(speaker), "ok"
            made = made or self._message(speaker, self.messages[message])
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

    def _plan(self, speaker: Speaker) -> list[str]:
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

    def _question(self, speaker: Speaker) -> Made | None:
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
        siblings = [f for f in self.facts if f.topic == known.fact.topic and f is not known.fact]
        rivals = [
            self._known(fact).fill(text)
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
        false = contradictions(draw, known, asked, answer, rivals, others)
        voiced = speaker.speak(reply)
        return typed(draw, known.fill(asked)), voiced, [speaker.speak(text) for text in false]

    def _message(self, speaker: Speaker, message: Message) -> Made | None:
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
        other = self.draw.choice([f for f in self.facts if f.where and f.where != mine.where])
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
                        questions._other(maker.draw, replies, turns[k]),
                        turns[k],
                    ],
                    "history": turns[:k],
                }
                for k, false in zip(range(1, len(turns), 2), wrong, strict=True)
            ],
        }
        for persona, wrong, turns in made
    ]
