"""Who speaks in made small talk: personas of facts, of the page's pools or of people's files, a third of them with a voice."""

import random
import re
from collections.abc import Sequence

from persona_bot.persona import random_persona
from persona_bot.pools import POOLS
from train.data import questions
from train.data.everyday_speaker import UNTOLD, Known, Speaker
from train.data.everyday_templates import FACTS, Voice, read_voices
from train.data.held_out import held_out_sentences
from train.data.line_questions import fact_of, values_of
from train.data.templates import Fact, read_facts, read_slots

# topics of question_templates.txt that no topic of everyday_facts.txt speaks of
MORE_TOPICS = {"allergy", "church", "color", "films", "hair", "language", "money", "music"}
MORE_TOPICS |= {"prize", "read", "season", "smoke", "tall", "trip", "tv", "weather"}
CORES = ("trade", "being", "work")  # one of them says what a persona is
MEET_POOLS = {"dream"} | MORE_TOPICS & {"allergy", "hair", "language", "prize", "smoke", "tv"}


class Personas:
    """Draws personas; none has a sentence that the evaluation asks about."""

    def __init__(self, draw: random.Random, written: Sequence[Sequence[str]] = ()):
        """`written`: personas by people, for every other one."""
        self.draw = draw
        asked = questions.TEMPLATES[0]
        self.slots, self.facts = read_slots(asked), read_facts(FACTS)
        self.facts += [fact for fact in read_facts((asked,)) if fact.topic in MORE_TOPICS]
        self.voices = read_voices()
        self.held_out = held_out_sentences()
        # braces would be slots
        self.written = [
            p for p in written if not self.held_out & set(p) and not re.search(r"[{}]", "".join(p))
        ]

    def speaker(self) -> Speaker:
        """A persona of three to six facts, or of the page's pools, or one of `written`; some have a voice, and a line that tells it."""
        draw = self.draw
        if self.written and draw.random() < 0.5:
            return Speaker(draw, self._from_written(draw.choice(self.written)), self._voice())
        from_pools = draw.random() < 0.25
        if from_pools:
            known = self._from_pools()
        else:
            (topic,) = draw.choices(CORES, (4, 1, 1))
            known = [self.known_of(draw.choice([f for f in self.facts if f.topic == topic]))]
            if draw.random() < 0.25:  # animals have names, too: whose is asked for?
                known.append(self.known_of(next(f for f in self.facts if f.topic == "pet")))
        topics = {k.fact.topic for k in known} | set(CORES)
        rest = [
            f
            for f in self.facts
            if f.topic not in topics and (not from_pools or f.topic in MEET_POOLS)
        ]
        for fact in draw.sample(rest, len(rest)):
            if len(known) >= (8 if from_pools else 3) + draw.randrange(4):
                break
            if fact.topic not in {k.fact.topic for k in known}:
                known.append(self.known_of(fact))
        draw.shuffle(known)
        return Speaker(draw, known, self._voice())

    def _voice(self) -> Voice | None:
        return self.draw.choice(self.voices) if self.draw.random() < 0.3 else None

    def _from_written(self, sentences: Sequence[str]) -> list[Known]:
        """The sentences as they are, now and then with a name, an age or an animal where they tell of none."""
        known = [Known(fact_of(line), line, values_of(line)) for line in sentences]
        untold = ("name", "name|called"), ("age", r"\d\d|years"), ("pet", UNTOLD["petless"])
        for topic, told in untold:
            if self.draw.random() < 0.3 and not re.search(told, " ".join(sentences)):
                known.append(self.known_of(next(f for f in self.facts if f.topic == topic)))
        self.draw.shuffle(known)
        return known

    def known_of(self, fact: Fact) -> Known:
        """The fact with values of one's own."""
        while True:
            values = questions.draw_values(self.draw, self.slots, fact.slots)
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
