"""The base model of a run that is resumed: another one, or other weights in its place, is refused; so is a base that is written over.

Run: `python -m pytest tests/train/test_resume_base.py`
"""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from persona_bot.checkpoints.files import sha256
from tests.convai_data import make_bases
from train import finetune
from train.questions import make_dialogues
from train.run.log import Progress, read_log

LORA = ["--no-bf16", "--lora-rank", "2", "--save-every", "1"]
WHOLE = ["--no-bf16", "--lora-rank", "0", "--save-every", "1"]


@pytest.fixture
def data(tmp_path) -> str:
    file = tmp_path / "data.json"
    file.write_text(json.dumps(make_dialogues(4, seed=5)))
    return str(file)


@pytest.fixture
def base(chat_folder, tmp_path) -> Path:
    return Path(shutil.copytree(chat_folder, tmp_path / "base"))


def command(data: str, base: Path, out: Path, *more: str) -> list[str]:
    given = ["--data", data, "--model", str(base), "--out", str(out), "--score-dialogues", "0"]
    return [*given, *more]


def other_weights(folder: Path) -> None:
    """A model of the same shape in its place."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "mlp" in name)
    save_file(weights | {name: weights[name] + 1}, folder / "model.safetensors", {"format": "pt"})


def stopped(arguments: list[str], monkeypatch) -> None:
    """Runs the command until Ctrl-C in its first step."""
    on_step_end = Progress.on_step_end

    def stopping(self, args, state, control, **options):
        on_step_end(self, args, state, control, **options)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(Progress, "on_step_end", stopping)
        finetune.main(arguments)
    assert ended.value.code == 130


def refusal(arguments: list[str], capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        finetune.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("how", [LORA, WHOLE], ids=["lora", "whole"])
def test_a_run_is_not_resumed_on_other_weights(data, base, tmp_path, monkeypatch, capsys, how):
    how, out, other = [*how, "--epochs", "9", "--accumulate", "1"], tmp_path / "out", tmp_path / "b"
    stopped(command(data, base, out, *how), monkeypatch)
    shutil.copytree(base, other)
    other_weights(other)
    told = (
        f"{out / 'checkpoint-1'} was trained with another base model; resume with the same, "
        "or start anew without --resume."
    )
    assert refusal(command(data, other, out, *how, "--resume"), capsys) == told
    base.rename(tmp_path / "moved")  # the same weights, wherever they lie
    other.rename(base)
    assert refusal(command(data, base, out, *how, "--resume"), capsys) == told
    finetune.main(command(data, tmp_path / "moved", out, *how, "--resume"))
    assert [line["step"] for line in read_log(out) if "loss" in line] == list(range(1, 46))


def test_a_checkpoint_from_before_bases_were_kept_is_resumed(data, base, tmp_path, monkeypatch):
    how, out = [*LORA, "--epochs", "9", "--accumulate", "1"], tmp_path / "out"
    stopped(command(data, base, out, *how), monkeypatch)
    kept, sums = (out / "checkpoint-1" / name for name in ("settings.json", "manifest.json"))
    identity = json.loads(kept.read_text())
    assert list(identity)[0] == "base" and len(identity.pop("base")) == 64
    kept.write_text(json.dumps(identity))
    hashes = json.loads(sums.read_text())
    sums.write_text(json.dumps(hashes | {"settings.json": sha256(kept)}))
    finetune.main(command(data, base, out, *how, "--resume"))
    assert (out / "training.json").exists()


def test_convai_holds_the_name_of_its_base(data, tmp_path, monkeypatch, capsys):
    """All weights are in its checkpoints; what would be wrong is what its card says."""
    pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")
    base, out = Path(make_bases(tmp_path)["gpt2"]), tmp_path / "out"
    how = ["--recipe", "convai", "--set", "num_train_epochs=2"]
    stopped(command(data, base, out, *how), monkeypatch)
    told = refusal(command(data, tmp_path / "other", out, *how, "--resume"), capsys)
    assert told == (
        f"{out / 'resume-1'} was trained with base_model gpt2, now it is other; resume with the same, "
        "or start anew without --resume."
    )
    finetune.main(command(data, base, out, *how, "--resume"))
    assert json.loads((out / "training.json").read_text())["base_model"] == "gpt2"


def test_a_base_is_not_written_over(data, base, capsys):
    """Its adapter would lie on a base that has it already, and a resumed run would begin from what it has made."""
    before = (base / "model.safetensors").read_bytes()
    told = refusal(command(data, base, base / ".", *LORA, "--overwrite"), capsys)
    assert told == (
        f"{base} is the model that training begins with, which must stay as it is; name another folder for --out."
    )
    assert (base / "model.safetensors").read_bytes() == before
