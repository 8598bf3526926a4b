"""How often the sentences that are marked under a reply are the right ones, and what it costs to find them.

Run: `python -m benchmarks.attribution`, with `--model` for another than the default one, `--data FILE` for real dialogues.

Asks the questions of train/metrics/recall_probes.json, each about one sentence of a persona of three; of the right answers,
in how many is that sentence among the marked ones? And says what needs no persona to all presets, and answers turns of
`--data`: how many of the replies are marked although they share no word with the persona? Both for each
threshold. A few of those replies use a sentence in other words; what is marked is printed, to be judged by a reader.
And what does marking cost, with these personas and with one of twelve sentences?
"""

import argparse
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from persona_bot import Settings, load_model
from persona_bot.layouts import SILENCE
from persona_bot.persona import Persona, load_presets
from persona_bot.replies.attribution import WITHOUT_WORD, over_threshold, sentence_losses, words
from persona_bot.replies.reply import Model
from train.data.dialogues import read_dialogues
from train.metrics.generation_eval import read_probes
from train.metrics.text import probe_passes

SMALL_TALK = (
    "hi", "lol", "how are you?", "thanks", "nice to meet you", "good morning", "haha, that is funny", "i am tired today",
    "it is raining here", "i do not know", "really?", "wow", "that is cool", "my cat is sick", "i just got home from work",
    "sorry, i was away", "what a day", "i have to go now", "see you later", "good night",
)  # fmt: skip
QUESTIONS = ("what do you do all day?", "do you have any pets?", "what can you not stand?")
THRESHOLDS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)
MOST_TURNS = 7  # of a real dialogue, so that a page's memory holds them


class Answer(NamedTuple):
    persona: Persona
    said: str
    reply: str
    losses: list[float]

    def marked(self, threshold: float = WITHOUT_WORD) -> list[int]:
        return [k for k, _ in over_threshold(self.persona, self.reply, self.losses, threshold)]


class Clock:
    """Answers with a model, and keeps the seconds that replies and their marks take."""

    def __init__(self, model: Model):
        self.model, self.replies, self.marks = model, 0.0, 0.0

    def ask(self, persona: Persona, turns: Sequence[str], seed: int) -> Answer:
        started = time.perf_counter()
        reply = "".join(self.model.reply(persona, turns, Settings(seed=seed)))
        replied = time.perf_counter()
        losses = sentence_losses(self.model, persona, turns, reply)
        self.replies += replied - started
        self.marks += time.perf_counter() - replied
        return Answer(persona, turns[-1], reply, losses)

    def tell(self, of: str) -> None:
        print(f"{of}: marking takes {self.marks / self.replies:.2f} of the time of the replies")
        self.replies = self.marks = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attribution", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--model", help="Hub repository or folder; else the default model")
    parser.add_argument("--data", help="a file of dialogues whose turns are answered, too")
    parser.add_argument("--replies", type=int, default=400, help="of --data (default: 400)")
    options = parser.parse_args()
    clock, presets = Clock(load_model(options.model)), list(load_presets().values())
    right = answered_right(clock)
    clock.tell("personas of three sentences")
    answers = [
        clock.ask(persona, [message], seed)
        for seed, persona in enumerate(presets)
        for message in SMALL_TALK
    ]
    clock.tell("presets")
    if options.data:
        turns = real_turns(options.data, options.replies)
        answers += [clock.ask(persona, said, seed) for seed, (persona, said) in enumerate(turns)]
        clock.tell("real dialogues")
    idle = [one for one in answers if not words(one.reply) & words(" ".join(one.persona.sentences))]
    report(right, idle)
    for seed, (persona, other) in enumerate(zip(presets, presets[1:], strict=False)):
        for question in QUESTIONS:
            clock.ask(Persona("", (persona.sentences + other.sentences)[:12]), [question], seed)
    clock.tell("personas of twelve sentences")


def answered_right(clock: Clock) -> list[tuple[Answer, set[int]]]:
    """The right answers to the recall probes, each with the numbers of the sentences that hold it; prints those not marked."""
    right = []
    for seed, probe in enumerate(read_probes()):
        answer = clock.ask(Persona("", probe.persona), [probe.question], seed)
        if probe_passes(answer.reply, probe.accept, probe.refuse):
            about = {k for k, s in enumerate(probe.persona) if probe_passes(s, probe.accept)}
            right.append((answer, about))
            if not about & set(answer.marked()):
                print(f"not marked: {answer.said} - {answer.reply}")
    return right


def report(right: list[tuple[Answer, set[int]]], idle: list[Answer]) -> None:
    """The table over thresholds; `idle` replies share no word with their persona, and those of them that are marked are printed."""
    for one in idle:
        for number in one.marked():
            print(f"marked: {one.said} - {one.reply} - {one.persona.sentences[number]}")
    print(f"{len(right)} right answers, {len(idle)} replies that share no word with their persona")
    print("threshold  right sentence marked  marks each  marked though no word is shared")
    for threshold in THRESHOLDS:
        found = sum(bool(about & set(one.marked(threshold))) for one, about in right)
        marks = sum(len(one.marked(threshold)) for one, _ in right)
        wrong = sum(bool(one.marked(threshold)) for one in idle)
        print(
            f"{threshold:9.1f}  {found / len(right):21.1%}  {marks / len(right):10.2f}  {wrong:3} ({wrong / len(idle):.1%})"
            + ("  <- in use" if threshold == WITHOUT_WORD else "")
        )


def real_turns(file: str, count: int) -> list[tuple[Persona, list[str]]]:
    """Places of real dialogues where the persona speaks next; the same ones each time."""
    found = []
    for dialogue in read_dialogues(file):
        for utterance in dialogue.utterances:
            turns = [turn for turn in utterance.history if turn != SILENCE][-MOST_TURNS:]
            if len(turns) % 2:  # the partner's first
                found.append((Persona("", tuple(dialogue.personality)), turns))
    return random.Random(0).sample(found, min(count, len(found)))


if __name__ == "__main__":
    main()
