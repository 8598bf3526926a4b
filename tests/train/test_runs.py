"""A run from its first learning rate to its end: warm-up, few steps, what --resume costs, one process a folder, exit codes."""

import copy
import errno
import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import MambaConfig, MambaForCausalLM

from persona_bot.errors import UserError
from tests.children import program
from tests.sft_tiny import examples_of, settings
from train import finetune
from train.data.questions import make_dialogues
from train.recipes import pipelines, sft
from train.recipes.sft import add_lora, count_steps, train_sft
from train.run.checkpoints import remove_checkpoints
from train.run.lock import only_training
from train.run.log import Interrupted, read_log
from train.run.speed import step_flops


def test_the_first_step_of_a_warm_up_changes_something(chat_model, chat_tokenizer, tmp_path):
    run = settings(epochs=10, row_length=2048, warmup=0.3)
    train_sft(copy.deepcopy(chat_model), examples_of(chat_tokenizer), [], tmp_path, run)
    rates = [line["learning_rate"] / 1e-2 for line in read_log(tmp_path)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[3:] == sorted(rates[3:], reverse=True) and 0 < rates[-1] < 0.1


@pytest.mark.parametrize("rows, steps", [(3, 3), (8, 6), (9, 9)])
def test_steps_are_counted_as_the_trainer_counts_them(rows, steps):
    assert count_steps(rows, settings(epochs=3, accumulate=4)) == steps


def test_few_steps_are_warned_of_with_the_cure(capsys):
    pipelines.warn_of_few(29)
    told = capsys.readouterr().err
    assert "29 steps" in told and "--epochs" in told and "--accumulate" in told
    pipelines.warn_of_few(30)
    assert capsys.readouterr().err == ""


def test_the_cost_of_a_resumed_run_is_that_of_the_rest():
    whole = sft.Cost(100.0, 2.0, 0.5, 300.0)
    assert pipelines.rest_of(whole, 75, 100) == (25.0, 2.0, 0.5, 300.0)
    assert pipelines.rest_of(whole, 120, 100).seconds == 0.0
    assert pipelines.rest_of(None, 5, 100) is None


# ---- one process a folder


HOLDER = """
import sys
from pathlib import Path
from train.run.lock import only_training
with only_training(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_training_is_refused_by_number_until_the_first_is_gone(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with program(command, **pipes) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"is already being trained by process {first.pid};"):
            with only_training(tmp_path):
                pass
        first.kill()  # a crash: nothing is cleaned up
        first.wait(30)
    with only_training(tmp_path):
        assert (tmp_path / ".training.pid").read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_on_a_full_disk_is_one_sentence_and_stays_empty(tmp_path, monkeypatch):
    """An empty file, the lock, still fits there; its owner's number does not."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(UserError) as told:
        patched.setattr(Path, "write_text", full)
        with only_training(tmp_path):
            pass
    assert str(told.value) == (
        f"{tmp_path} cannot be written (No space left on device); free space, or name another folder for --out."
    )
    assert list(tmp_path.iterdir()) == []
    with only_training(tmp_path):
        pass


# ---- the end


def test_what_ends_training_begins_a_line_of_its_own(chat_model, chat_tokenizer, tmp_path, capsys):
    """The bar's line has ended by then, and is not drawn again behind it."""
    run = settings(epochs=2, save_every=1)
    (tmp_path / ".checkpoint-1.new").write_text("a file where the first checkpoint is written")
    with pytest.raises(UserError) as told:
        train_sft(copy.deepcopy(chat_model), examples_of(chat_tokenizer), [], tmp_path, run)
    print(told.value, file=sys.stderr)
    del told
    gc.collect()
    bar, last, end = capsys.readouterr().err.rsplit("\n", 2)
    assert "training: " in bar and "cannot be written" in last and "training: " not in last
    assert end == ""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_its_own_code(monkeypatch, tmp_path, capsys, number, code):
    def stopped(*_):
        raise Interrupted(tmp_path, number)

    monkeypatch.setattr(finetune, "run", stopped)
    with pytest.raises(SystemExit) as ended:
        finetune.main(["--data", "x.json", "--out", str(tmp_path)])
    assert ended.value.code == code
    assert "--resume goes on" in capsys.readouterr().err


def test_a_finished_run_keeps_its_model_only(chat_folder, tmp_path, capsys):
    data, out = tmp_path / "data.json", tmp_path / "out"
    data.write_text(json.dumps(make_dialogues(4, seed=5)))
    given = ["--data", str(data), "--out", str(out), "--model", str(chat_folder), "--no-bf16"]
    given += ["--score-dialogues", "0", "--epochs", "1", "--lora-rank", "2"]
    finetune.main(given)
    names = {path.name for path in out.iterdir()}
    assert {"model.safetensors", "adapter", "training.json", "README.md"} <= names
    assert not {n for n in names if n.startswith(("checkpoint-", "best", ".training"))}
    with pytest.raises(SystemExit) as ended:
        finetune.main([*given, "--resume"])
    assert ended.value.code == 2
    assert "holds a finished training" in capsys.readouterr().err


def test_models_that_an_epoch_left_are_no_checkpoints(tmp_path):
    for name in ("checkpoint-12", "best", "checkpoint-8-epoch-1", "best_model"):
        (tmp_path / name).mkdir()
    remove_checkpoints(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-8-epoch-1", "best_model"}


# ---- what cannot be trained


def test_lora_on_mamba_is_one_sentence():
    model = MambaForCausalLM(MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(UserError, match="^LoRA cannot train mamba models; add --lora-rank 0"):
        add_lora(model, settings(lora_rank=4))


def test_recipe_convai_under_accelerate_is_one_sentence(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="^Recipe convai trains in one process"):
        pipelines.train_with_convai(None, [], [])


def test_the_operations_of_a_step_are_counted(chat_model):
    """Two blocks of q, k, v, o and three of the MLP; the tied output layer at supervised positions."""
    block = 32 * (32 + 16 + 16 + 32 + 3 * 64)
    assert step_flops(chat_model, 10, 4) == 6 * (
        2 * block * 10 + chat_model.lm_head.weight.numel() * 4
    )
    model = add_lora(copy.deepcopy(chat_model), settings(lora_rank=4))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = 4 * (2 * block * 10 + chat_model.lm_head.weight.numel() * 4)
    assert step_flops(model, 10, 4) == frozen + 6 * trained * 10
