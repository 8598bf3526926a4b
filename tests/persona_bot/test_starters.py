"""What the page offers to ask of its presets is answered right by the default weights.

Run: `python -m pytest tests/persona_bot/test_starters.py`
"""

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.layouts import SILENCE
from persona_bot.persona import load_presets
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from train.metrics.generation_eval import together
from train.metrics.text import probe_passes

SEEDS = 2
# a right answer holds one of these words and none of those behind the bar
ANSWERS = {
    "environmentalist": ["greenpeace", "no, bike, bicycle", "moss, dog", "tomatoes, beans"],
    "soldier": ["military, soldier", "awful, terrible, bad, not great", "five", "single"],
    "astronaut": ["200", "chickens", "sons", "roller coasters"],
    "detective": ["pet, dog, cat, pets", "office, chicago, couch", "eight, 8", "bulldog, partner"],
    "gamer-grandmother": ["racing", "grandson", "scarves", "bus"],
    "lighthouse-keeper": ["cat, captain", "61", "accordion", "book, books"],
    "pastry-chef": ["hate, no, not | love", "three", "medals, medal", "bakery"],
    "rancher": ["slow", "no, never, not, vegetarian | i eat meat", "poems", "chili, beans"],
    "robot-butler": ["robot | not a robot", "countess", "magnets, rain", "dance"],
    "surf-teacher": ["surfing, surf", "hawaii, van", "like, love, no, not, bitten", "tacos"],
    "taxi-driver": ["math, teacher", "three, daughters", "opera, sing", "nurse"],
    "vampire": ["312", "tomato, faint, no", "tomato", "bat"],
}


def test_every_starter_has_an_expected_answer():
    assert {name: len(p.starters) for name, p in load_presets().items()} == {
        name: len(answers) for name, answers in ANSWERS.items()
    }


def test_the_default_answers_what_the_page_offers_to_ask(smollm2_tokenizer, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, presets = LocalModel.served(load_checkpoint(None, "cpu")), load_presets()
    asked = [
        (name, question, answer, seed)
        for name, answers in ANSWERS.items()
        for question, answer in zip(presets[name].starters, answers, strict=True)
        for seed in range(SEEDS)
    ]

    def is_right(k: int) -> tuple[bool, str]:
        name, question, answer, seed = asked[k]
        persona = presets[name]
        turns = [SILENCE, persona.greeting, question]
        said = "".join(model.reply(persona, turns, Settings(seed=seed)))
        accept, _, refuse = answer.partition("|")
        right = probe_passes(said, accept.split(","), [w for w in refuse.split(",") if w.strip()])
        return right, f"{name}: {question} {said}"

    answers = together(model, is_right, range(len(asked)), iter)
    wrong = [said for right, said in answers if not right]
    assert len(wrong) <= 0.1 * len(asked), wrong
