"""Sentences that no made dialogue may teach: those that train.evaluate asks about, and the page's own personas'."""

import json
from pathlib import Path

from persona_bot.persona import load_presets

METRICS = Path(__file__).parents[1] / "metrics"
ASKED = ("recall_probes.json", "contradiction_questions.json")


def held_out_sentences() -> set[str]:
    sentences = {s for persona in load_presets().values() for s in persona.sentences}
    for file in ASKED:
        for entry in json.loads((METRICS / file).read_text(encoding="utf-8")):
            sentences.update(entry["persona"])
    return sentences
