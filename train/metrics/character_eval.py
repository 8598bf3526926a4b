"""Asks a model what shows whether it stays in character: contradiction questions, everyday messages, greetings.

Run: `python -m train.evaluate --model M --only contradictions,everyday,greetings`.
"""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from persona_bot.persona import Persona, load_presets, random_persona
from persona_bot.replies.reply import Model
from persona_bot.settings import Settings
from train.metrics.character import asks_back, tells_of, voice_accuracy
from train.metrics.generation_eval import Progress, say, together
from train.metrics.text import mean, probe_passes

HERE = Path(__file__).parent
GREETINGS = ("hi", "hello!", "hey there, how are you?")
RANDOM_PERSONAS = 12  # greeted beside the first presets
GREETED_PRESETS = 8  # whose voices are told apart
GREETINGS_OF_EACH = 12


class Said(NamedTuple):
    """An answer, and whether it passes."""

    kind: str
    persona: tuple[str, ...]
    heard: str
    text: str
    right: bool


def read_json(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def ask_contradictions(
    model: Model, settings: Settings, seed: int, progress: Progress = iter
) -> list[Said]:
    """One answer to every question of contradiction_questions.json."""
    entries = read_json("contradiction_questions.json")

    def answer(k: int) -> Said:
        entry = entries[k]
        persona, question = tuple(entry["persona"]), entry["question"]
        text = say(model, Persona("", persona), [question], settings, seed + k)
        right = probe_passes(text, entry["accept"], entry.get("refuse", ()))
        return Said(entry["kind"], persona, question, text, right)

    return together(model, answer, range(len(entries)), progress)


def send_everyday(
    model: Model, settings: Settings, seed: int, progress: Progress = iter
) -> list[Said]:
    """Answers to every message of everyday_messages.json by every persona there.

    Messages marked `after` come behind a question that the persona answered with its first sentence.
    """
    data = read_json("everyday_messages.json")
    pairs = list(product(data["personas"], data["messages"]))

    def answer(k: int) -> Said:
        sentences, message = pairs[k]
        before = ["tell me about yourself.", sentences[0]] if message.get("after") else []
        heard = message["message"]
        text = say(model, Persona("", tuple(sentences)), [*before, heard], settings, seed + k)
        right = tells_of(text, sentences) or probe_passes(text, message.get("topic", ()))
        return Said("everyday", tuple(sentences), heard, text, right)

    return together(model, answer, range(len(pairs)), progress)


def greet(
    model: Model, settings: Settings, seed: int, progress: Progress = iter
) -> list[list[Said]]:
    """Answers to greetings: GREETINGS_OF_EACH of each of the first presets, then one of each random persona."""
    presets = list(load_presets().values())[:GREETED_PRESETS]
    others = [random_persona(seed + k) for k in range(RANDOM_PERSONAS)]
    asked = [(p, k) for p in presets for k in range(GREETINGS_OF_EACH)]
    asked += [(p, k) for k, p in enumerate(others)]

    def answer(number: int) -> Said:
        persona, k = asked[number]
        heard = GREETINGS[k % len(GREETINGS)]
        text = say(model, persona, [heard], settings, seed + number)
        told = tells_of(text, [*persona.sentences, persona.name])
        return Said(persona.name, persona.sentences, heard, text, told)

    said = together(model, answer, range(len(asked)), progress)
    step = GREETINGS_OF_EACH
    starts = range(0, step * len(presets), step)
    return [*(said[at : at + step] for at in starts), said[step * len(presets) :]]


def contradiction_scores(answers: Sequence[Said]) -> dict[str, float]:
    """Shares of right answers, in all and by kind."""
    scores = {"contradiction_questions": mean(a.right for a in answers)}
    for kind in dict.fromkeys(a.kind for a in answers):
        name = f"contradiction_{kind.replace(' ', '_')}"
        scores[name] = mean(a.right for a in answers if a.kind == kind)
    return scores


def everyday_scores(answers: Sequence[Said]) -> dict[str, float]:
    """The share in character or on topic, and the share that ends by asking back."""
    return {
        "everyday_messages": mean(a.right for a in answers),
        "asks_back": mean(asks_back(a.text) for a in answers),
    }


def greeting_scores(greetings: Sequence[Sequence[Said]]) -> dict[str, float]:
    """The share of greetings that tell of the persona, and how well voices are told apart (all but the last list)."""
    texts = [[said.text for said in of_one] for of_one in greetings[:-1]]
    return {
        "greeting_with_persona": mean(said.right for of_one in greetings for said in of_one),
        "voice": voice_accuracy(texts),
    }
