"""The notebook runs from its first cell to its last: on the example file, a tiny model, and a Hub on 127.0.0.1.

Run: `python -m pytest tests/train/test_notebook.py`
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.hub_server import Hub

ROOT = Path(__file__).parents[2]
TOKEN = "hf_canaryCanaryCanary"


def cells(kind: str) -> list[str]:
    notebook = json.loads((ROOT / "train" / "notebook.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and len(notebook["cells"]) <= 10
    assert not [cell for cell in notebook["cells"] if cell.get("outputs")]  # outputs go stale
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_it_explains_what_it_does():
    text = " ".join(cells("markdown"))
    for word in ("Persona-Chat", "token by token", "nats", "hits@1", "f1", "validation", "recall"):
        assert word in text


def test_every_cell_runs(chat_folder, tmp_path):
    (tmp_path / "IPython").mkdir()
    (tmp_path / "IPython" / "__init__.py").write_text(
        "version_info = (9, 0)\ndef get_ipython(): return None\n"
    )
    (tmp_path / "IPython" / "display.py").write_text(
        "def Image(filename): return open(filename, 'rb').read(4)\ndef display(image): print(image)\n"
    )
    (tmp_path / "my own").mkdir()  # as in /content/drive/My Drive
    (tmp_path / "my own" / "me.txt").write_text("i sail.\n")
    shutil.copytree(chat_folder, tmp_path / "my own" / "model")
    (tmp_path / "notebook.py").write_text("\n\n".join(cells("code")), encoding="utf-8")
    with Hub() as hub:
        hub.users[TOKEN] = {"name": "user", "role": "write"}
        environment = os.environ | {
            "PERSONA_BOT_READY": "1",
            "MODEL": str(tmp_path / "my own" / "model"),
            "OUT": str(tmp_path / "my own" / "out"),
            "PERSONA": str(tmp_path / "my own" / "me.txt"),
            "REPO": "user/bot",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, str(tmp_path / "notebook.py")],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
        assert "  persona: I keep bees" in done.stdout and "nats per reply" in done.stdout
        assert "\\x89PNG" in done.stdout
        assert done.stdout.rstrip().endswith(f"Published: {hub.url}/spaces/user/bot-chat")
        assert "model.safetensors" in hub.head("user/bot").files
        scored = hub.head("user/bot").files["README.md"].data.decode()
        assert "hits@1, likelihood over nothing" in scored and "Not scored yet" not in scored
        card = hub.head("user/bot-chat", "space").files["README.md"].data.decode()
        assert "title: My persona bot" in card and TOKEN not in done.stdout + done.stderr
