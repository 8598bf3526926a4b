"""Recipe convai around its loop: trackers, which GPU, what is told of few dialogues and of an early stop."""

import pytest
import torch

from tests.convai_data import QUIET, entries, make_bases, write

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements.txt")

from train import finetune  # noqa: E402  (all of these after the skip)
from train.data.dialogues import read_dialogues  # noqa: E402
from train.options import parse  # noqa: E402
from train.recipes.convai import ConvAIModel, train_convai  # noqa: E402
from train.recipes.convai_run import Passes, convai_arguments  # noqa: E402


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return str(make_bases(tmp_path_factory.mktemp("bases"))["gpt2"])


# ---- trackers


def test_a_tracker_gets_every_loss(base, tmp_path, capsys):
    data, out = str(write(tmp_path, entries(2))), tmp_path / "out"
    arguments = ["--recipe", "convai", "--model", base, "--data", data, "--valid", data]
    arguments += ["--out", str(out), "--report-to", "tensorboard", "--score-dialogues", "0"]
    finetune.main([*arguments, "--set", "num_train_epochs=1"])
    (events,) = out.rglob("events.out.tfevents.*")
    for name in ("loss", "lm_loss", "mc_loss", "learning_rate", "grad_norm"):
        assert f"train/{name}".encode() in events.read_bytes()
    for name in ("loss", "language_model_loss", "f1_score"):
        assert name.encode() in events.read_bytes()


@pytest.mark.parametrize("recipe", ["sft", "convai"])
def test_a_tracker_that_cannot_be_used_is_one_sentence(recipe, base, tmp_path, capsys):
    data = str(write(tmp_path, entries(2)))
    arguments = ["--recipe", recipe, "--model", base, "--data", data, "--report-to", "paper"]
    with pytest.raises(SystemExit) as ended:
        finetune.main([*arguments, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    told = "--report-to must be one of none, tensorboard, wandb, trackio, not paper."
    assert capsys.readouterr().err.splitlines() == [told]


def test_the_trackers_flag_is_of_both_recipes(tmp_path):
    arguments = ["--data", "d.json", "--out", str(tmp_path / "out"), "--report-to", "wandb"]
    for recipe in ("sft", "convai"):
        assert parse([*arguments, "--recipe", recipe]).report_to == "wandb"


# ---- which GPU


@pytest.mark.parametrize("device, used", [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_training_stays_on_the_gpu_of_the_model(base, tmp_path, monkeypatch, device, used):
    """Of two GPUs; Trainer alone would take the first, and cut batches into pieces for both."""
    chosen = []
    args = ConvAIModel("gpt2", base, args=QUIET, use_cuda=False).args
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    arguments = convai_arguments(args, tmp_path, Passes(1, 1), torch.device(device))
    assert (arguments.device, arguments.n_gpu) == (torch.device("cuda", used), 1)
    assert arguments.distributed_state.device == chosen[-1] == arguments.device


def test_training_stays_on_the_cpu_where_that_is_asked_for(base, tmp_path, monkeypatch):
    args = ConvAIModel("gpt2", base, args=QUIET, use_cuda=False).args
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arguments = convai_arguments(args, tmp_path, Passes(1, 1), torch.device("cpu"))
    assert (arguments.device, arguments.n_gpu) == (torch.device("cpu"), 0)


# ---- what is told


@pytest.mark.parametrize("count, what", [(1, "1 dialogue"), (4, "4 dialogues")])
def test_a_handful_of_dialogues_is_all_trained_on_and_that_is_said(
    base, tmp_path, monkeypatch, capsys, count, what
):
    monkeypatch.chdir(tmp_path)
    file = str(write(tmp_path, entries(2)[:count]))
    model = ConvAIModel("gpt2", base, args={**QUIET, "silent": False}, use_cuda=False)
    capsys.readouterr()
    model.train_model(file, show_running_loss=False)
    assert capsys.readouterr().err == (
        f"Nothing is held out of {what}: no validation, no early stopping; "
        "evaluate_during_training with an eval_file names some to validate on.\n"
    )
    model.train_model(file, eval_file=file, args={"evaluate_during_training": True, "silent": True})
    assert "held out" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "saving, kept",
    [
        ({}, "; the best weights are kept."),
        ({"save_best_model": False}, "."),
        ({"no_save": True}, "."),
    ],
)
def test_an_early_stop_promises_what_is_there(base, tmp_path, capsys, saving, kept):
    args = {"evaluate_during_training": True, "use_early_stopping": True, "num_train_epochs": 9}
    args |= {"early_stopping_patience": 0, "early_stopping_delta": 100}
    data, out = read_dialogues(write(tmp_path, entries(2))), tmp_path / "out"
    done = train_convai(base, data, data, out, {**QUIET, **args, **saving})
    assert done.finished and done.step == 4
    told = f"No better validation 1 times: training ends early{kept}"
    assert capsys.readouterr().err == f"{told}\n"
    assert (out / "best_model").exists() == ("kept" in told)
