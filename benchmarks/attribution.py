"""How often the sentences that are marked under a reply are the right ones, and what it costs to find them.

Run: `python -m benchmarks.attribution`, with `--model` for another than the default one.

Asks the questions of train/metrics/recall_probes.json, each about one sentence of a persona of three; of the right answers,
in how many is that sentence among the marked ones? And says what needs no persona to all presets: how many of the replies
are marked although they share no word with it? And what does marking cost, with these personas and with one of twelve sentences?
"""

import argparse
import json
import re
import time
from pathlib import Path

from persona_bot import Settings, load_model
from persona_bot.persona import Persona, load_presets
from persona_bot.replies.attribution import used_sentences, words

PROBES = Path(__file__).parent.parent / "train" / "metrics" / "recall_probes.json"
SMALL_TALK = (
    "hi", "lol", "how are you?", "thanks", "nice to meet you", "good morning", "haha, that is funny", "i am tired today",
    "it is raining here", "i do not know", "really?", "wow", "that is cool", "my cat is sick", "i just got home from work",
    "sorry, i was away", "what a day", "i have to go now", "see you later", "good night",
)  # fmt: skip
QUESTIONS = ("what do you do all day?", "do you have any pets?", "what can you not stand?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="Hub repository or folder; else the default model")
    model = load_model(parser.parse_args().model)
    clock = {"reply": 0.0, "marking": 0.0}
    presets = list(load_presets().values())

    def ask(persona: Persona, question: str, seed: int) -> tuple[str, list[int]]:
        """The reply, and the numbers of the sentences that are marked."""
        started = time.perf_counter()
        reply = "".join(model.reply(persona, [question], Settings(seed=seed)))
        clock["reply"] += time.perf_counter() - started
        started = time.perf_counter()
        used = used_sentences(model, persona, [question], reply)
        clock["marking"] += time.perf_counter() - started
        return reply, [number for number, _ in used]

    def tell_the_cost(of: str) -> None:
        print(
            f"{of}: marking takes {clock['marking'] / clock['reply']:.2f} of the time of the replies"
        )
        clock.update(reply=0.0, marking=0.0)

    right = found = marks = 0
    for seed, probe in enumerate(json.loads(PROBES.read_text(encoding="utf-8"))):
        persona = Persona("", tuple(probe["persona"]))
        reply, marked = ask(persona, probe["question"], seed)
        if holds(reply, probe["accept"]):
            about = [k for k, s in enumerate(persona.sentences) if holds(s, probe["accept"])]
            right, marks = right + 1, marks + len(marked)
            found += bool(set(about) & set(marked))
            if not set(about) & set(marked):
                print(f"not marked: {probe['question']} - {reply}")
    print(
        f"{right} right answers; the right sentence is marked in {found / right:.1%}, {marks / right:.2f} marks each"
    )

    tell_the_cost("personas of three sentences")

    idle = wrong = 0
    for seed, persona in enumerate(presets):
        for message in SMALL_TALK:
            reply, marked = ask(persona, message, seed)
            if not words(reply) & words(" ".join(persona.sentences)):
                idle, wrong = idle + 1, wrong + bool(marked)
                if marked:
                    print(f"marked: {message} - {reply} - {persona.sentences[marked[0]]}")
    print(f"{idle} replies that share no word with the persona; {wrong / idle:.1%} marked")
    tell_the_cost("presets")

    for seed, (one, other) in enumerate(zip(presets, presets[1:], strict=False)):
        for question in QUESTIONS:
            ask(Persona("", (one.sentences + other.sentences)[:12]), question, seed)
    tell_the_cost("personas of twelve sentences")


def holds(text: str, accept: list[str]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", text.lower()) for word in accept)


if __name__ == "__main__":
    main()
