"""`--data USER/DATASET`: the real `datasets` library against a Hub on 127.0.0.1, in a process of its own.

Run: `python -m pytest tests/train/test_hub_data.py`
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import Hub
from tests.train.test_readers import MESSAGES, lines

pytest.importorskip("datasets")
ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from persona_bot.errors import UserError
from train.data.dialogues import as_entries
from train.data.sources import training_data
for name in sys.argv[1:]:
    try:
        train, valid = training_data([name])
        print("GOT", name, len(train), len(valid), as_entries(train)[0]["personality"])
    except UserError as error:
        print("TOLD", name, error)
"""
EVALUATE = "-m train.evaluate --data user/chats --only nats --device cpu".split()


def test_data_sets_of_the_hub_are_read_or_refused_in_one_sentence(tmp_path, chat_folder):
    plain = lines({"messages": MESSAGES["messages"][1:]})
    repos = {
        "user/chats": {
            "train.jsonl": lines(MESSAGES, MESSAGES),
            "validation.jsonl": lines(MESSAGES),
        },
        "user/plain": {"train.jsonl": plain},
        "user/text": {"train.jsonl": lines({"text": "x"})},
        "user/nothing": {"README.md": "hello"},
        "user/secret": {"train.jsonl": lines(MESSAGES)},
    }
    with Hub() as hub:
        for name, files in repos.items():
            content = {path: text.encode() for path, text in files.items()}
            hub.put(name, content, kind="dataset", private=name == "user/secret")
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
        }
        environment |= {
            "HF_DATASETS_CACHE": str(tmp_path / "data"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        environment.pop("HF_TOKEN", None)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *repos, "user/none"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=230,
        )  # fmt: skip
        scored = subprocess.run(
            [sys.executable, *EVALUATE, "--model", str(chat_folder)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=230,
        )  # fmt: skip
    assert scored.returncode == 0, scored.stderr[-2_000:]
    assert "on 1 dialogue, 2 replies" in scored.stdout  # its validation part
    assert done.returncode == 0, done.stderr[-2_000:]
    said = [line for line in done.stdout.splitlines() if line.startswith(("GOT", "TOLD"))]
    assert said[0] == "GOT user/chats 2 1 ['i keep bees.', 'i am afraid of heights.']"
    assert said[1] == "GOT user/plain 1 0 []"
    assert "note: user/plain: 1 dialogue without a persona" in done.stderr
    assert said[2].startswith(
        "TOLD user/text user/text: row 1 of train: has 'text'; expected 'personality'"
    )
    assert (
        said[3]
        == "TOLD user/nothing The data set user/nothing holds no files that can be read; choose another."
    )
    told = "There is no data set {} on the Hub that your token may read, and no such file; check the spelling, or run `hf auth login` if it is private."
    assert said[4:] == [f"TOLD {name} {told.format(name)}" for name in ("user/secret", "user/none")]
