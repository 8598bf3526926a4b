"""The training loop of recipe convai: resumed runs, memory, numbers that are none, early stopping."""

import math

import pytest
import torch
from safetensors.torch import load_file

from tests.convai_data import QUIET, Watch, entries, make_bases, write

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")

from persona_bot.checkpoints.load import load_checkpoint  # noqa: E402  (all of these after the skip)
from persona_bot.errors import UserError  # noqa: E402
from train.data.dialogues import read_dialogues  # noqa: E402
from train.recipes import convai_trainer  # noqa: E402
from train.recipes.convai import ConvAIModel, train_convai  # noqa: E402
from train.run.checkpoints import is_valid  # noqa: E402

# 4 epochs of 4 steps
ARGS = {
    **QUIET,
    "num_train_epochs": 4,
    "train_batch_size": 3,
    "learning_rate": 1e-2,
    "save_steps": 3,
}


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> str:
    """A GPT-2 with dropout, so that a resumed run needs the random state too."""
    return str(make_bases(tmp_path_factory.mktemp("dropout"), dropout=0.1)["gpt2"])


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    # four candidates: two are drawn each epoch
    return read_dialogues(write(tmp_path_factory.mktemp("data"), entries(4)))


@pytest.fixture(scope="session")
def whole(base, data, tmp_path_factory) -> bytes:
    """The weights of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    assert train_convai(base, data, None, out, ARGS).step == 16
    return (out / "model.safetensors").read_bytes()


def train(base, data, out, valid=None, watch=None, resume=False, **args):
    return train_convai(base, data, valid, out, {**ARGS, **args}, resume, [watch or Watch()])


def refusal(*arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        train(*arguments, **options)
    return str(caught.value)


# ---- whole runs


def test_a_run_leaves_a_checkpoint_and_nothing_else(base, data, tmp_path):
    watch = Watch()
    progress = train(base, data, tmp_path / "out", watch=watch, save_model_every_epoch=True)
    assert (progress.step, progress.finished) == (16, True)
    files = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "model_args.json",
        "persona_layout.json",
    }
    files |= {"tokenizer.json", "tokenizer_config.json"}
    last = {"finished.json"}
    folders = {f"checkpoint-{4 * k}-epoch-{k}" for k in (1, 2, 3, 4)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files | folders | last
    for name in folders:
        assert {path.name for path in (tmp_path / "out" / name).iterdir()} == files | {
            "manifest.json"
        }
        assert is_valid(tmp_path / "out" / name)
        load_checkpoint(str(tmp_path / "out" / name), "cpu", double_heads=True)
    assert [line["step"] for line in watch.steps] == list(range(1, 17))
    for line in watch.steps:
        assert set(line) == {
            "step",
            "epoch",
            "loss",
            "lm_loss",
            "mc_loss",
            "grad_norm",
            "learning_rate",
        }
        assert line["loss"] == pytest.approx(2 * line["lm_loss"] + line["mc_loss"])
        assert line["epoch"] == line["step"] / 4
    assert watch.steps[-1]["loss"] < watch.steps[0]["loss"] - 1


def test_the_seed_decides_every_byte(base, data, tmp_path, whole):
    train(base, data, tmp_path / "same")
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == whole
    train(base, data, tmp_path / "other", manual_seed=4)
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != whole


def test_pieces_of_a_batch_give_the_same_step(
    data, tmp_path, tmp_path_factory, monkeypatch, capsys
):
    """Ten examples in batches of 8, the last of an epoch smaller; memory for 8, 2 or 1 of them."""
    base = make_bases(tmp_path_factory.mktemp("plain"))["gpt2"]
    for out, limit, told in (("all", 99, []), ("some", 4, [4, 2]), ("accumulated", 4, [4, 2])):
        accumulate = 2 if out == "accumulated" else 1
        monkeypatch.setattr(convai_trainer, "losses", memory_for(limit))
        args = {"train_batch_size": 8, "gradient_accumulation_steps": accumulate}
        assert train(str(base), data, tmp_path / out, **args).step == 8 // accumulate
        said = [line for line in capsys.readouterr().err.splitlines() if "Memory" in line]
        assert said == [
            f"Memory ran out: now {k} examples a pass and {8 * accumulate // k} passes a step."
            for k in told
        ]
    weights, others = (load_file(tmp_path / out / "model.safetensors") for out in ("all", "some"))
    for name in weights:
        # its gradient is zero but for rounding, which AdamW blows up
        if name != "multiple_choice_head.summary.bias":
            torch.testing.assert_close(weights[name], others[name], rtol=1e-3, atol=1e-4, msg=name)


def memory_for(sequences: int):
    """The losses on a device whose memory holds so many sequences."""

    def losses(model, batch):
        if len(batch.ids) > sequences:
            raise torch.OutOfMemoryError("no memory left")
        return honest(model, batch)

    honest = convai_trainer.losses
    return losses


def test_memory_for_not_even_one_example_is_one_sentence(base, data, tmp_path, monkeypatch):
    monkeypatch.setattr(convai_trainer, "losses", memory_for(1))
    assert refusal(base, data, tmp_path / "out", watch=Watch(99)).startswith(
        "Memory ran out with a single example"
    )


def test_other_errors_of_the_model_are_not_taken_for_memory(base, data, tmp_path, monkeypatch):
    monkeypatch.setattr(convai_trainer, "losses", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        train(base, data, tmp_path / "out")


# ---- resuming


@pytest.mark.parametrize("step", [3, 4, 10])
def test_a_stopped_run_resumes_to_the_same_bytes(base, data, tmp_path, whole, step, capsys):
    out = tmp_path / "out"
    progress = train(base, data, out, watch=Watch(step))
    assert (progress.step, progress.finished) == (step, False)
    assert not (out / "model.safetensors").exists()
    capsys.readouterr()
    progress = train("/no/base/needed", data, out, resume=True)
    assert (progress.step, progress.finished) == (16, True)
    assert capsys.readouterr().err == f"Resuming from resume-{step}: step {step} of 16.\n"
    assert (out / "model.safetensors").read_bytes() == whole
    assert not [*out.glob("resume-*")]
    progress = train(base, data, out, resume=True)
    assert (progress.step, progress.finished) == (16, True)
    told = f"The training in {out} is finished; there is nothing to resume.\n"
    assert capsys.readouterr().err == told


def test_a_finished_training_is_no_other_one(base, data, tmp_path, whole, capsys):
    out, cure = tmp_path / "out", "start anew without --resume."
    train(base, data, out)
    for options, what in (({"num_train_epochs": 9}, "num_train_epochs 4"), ({}, "other training")):
        told = refusal(base, data if options else data[1:], out, resume=True, **options)
        assert told.startswith(f"{out} was trained with {what}") and told.endswith(cure)
    (out / "resume-16").mkdir()  # what is left of one where a kill came while it was removed
    assert train(base, data, out, resume=True).step == 16 and not [*out.glob("resume-*")]
    (out / "finished.json").unlink()
    assert refusal(base, data, out, resume=True) == (
        f"{out} holds a model that does not say what it was trained with; name another folder, or {cure}"
    )
    assert (out / "model.safetensors").read_bytes() == whole


def test_a_broken_resume_checkpoint_is_passed_over(base, data, tmp_path, whole, capsys):
    out = tmp_path / "out"
    train(base, data, out, watch=Watch(7))
    assert sorted(path.name for path in out.iterdir()) == ["resume-6", "resume-7"]
    with open(out / "resume-7" / "optimizer.pt", "r+b") as file:
        file.seek(-9, 2)
        file.write(b"x")
    capsys.readouterr()
    train(base, data, out, resume=True)
    assert capsys.readouterr().err == "Resuming from resume-6: step 6 of 16.\n"
    assert (out / "model.safetensors").read_bytes() == whole


def test_resuming_nothing_starts_at_the_beginning(base, data, tmp_path, whole, capsys):
    train(base, data, tmp_path / "out", resume=True)
    told = "holds no checkpoint to resume from: training starts at the beginning."
    assert capsys.readouterr().err == f"{tmp_path / 'out'} {told}\n"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == whole


def test_resuming_with_other_settings_or_data_is_refused(base, data, tmp_path):
    out = tmp_path / "out"
    train(base, data, out, watch=Watch(2))
    cure = "resume with the same, or start anew without --resume."
    message = refusal(base, data, out, resume=True, learning_rate=1e-3, watch=Watch(99))
    assert (
        message
        == f"{out / 'resume-2'} was trained with learning_rate 0.01, now it is 0.001; {cure}"
    )
    assert (
        refusal(base, data[:2], out, resume=True)
        == f"{out / 'resume-2'} was trained with other training data; {cure}"
    )


def test_a_new_run_forgets_an_older_one(base, data, tmp_path, whole):
    out = tmp_path / "out"
    train(base, data, out, watch=Watch(9), manual_seed=8)
    train(base, data, out, watch=Watch(2))
    assert sorted(path.name for path in out.iterdir()) == ["resume-0", "resume-2"]
    train(base, data, out, resume=True)
    assert (out / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("optimizer", ["AdamW", "Adafactor"])
def test_both_optimizers_resume(base, data, tmp_path, optimizer):
    args = {
        "optimizer": optimizer,
        "adafactor_relative_step": False,
        "adafactor_warmup_init": False,
        "gradient_accumulation_steps": 2,
    }
    train(base, data, tmp_path / "whole", **args)
    train(base, data, tmp_path / "parts", watch=Watch(3), **args)
    train(base, data, tmp_path / "parts", resume=True, **args)
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


# ---- numbers that are none


def test_a_loss_that_is_none_stops_and_keeps_the_last_good_checkpoint(
    base, data, tmp_path, monkeypatch
):
    out, honest, seen = tmp_path / "out", convai_trainer.losses, []

    def losses(model, batch):
        seen.append(batch)
        word, choice = honest(model, batch)
        return (word * math.nan if len(seen) == 6 else word), choice

    monkeypatch.setattr(convai_trainer, "losses", losses)
    assert refusal(base, data, out) == (
        "The loss is no longer a finite number at step 6, so training stopped; the last good checkpoint is kept; "
        "train anew with a lower learning_rate."
    )
    assert sorted(path.name for path in out.iterdir()) == ["resume-0", "resume-3"]
    assert all(
        tensor.isfinite().all()
        for tensor in load_file(out / "resume-3" / "model.safetensors").values()
    )


def test_a_wild_learning_rate_never_saves_a_spoilt_model(base, data, tmp_path):
    message = refusal(base, data, tmp_path / "out", learning_rate=1e30, warmup_ratio=0)
    assert "so training stopped" in message
    for file in tmp_path.rglob("model.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())


# ---- validation


def test_validation_during_training_keeps_the_best_model(base, data, tmp_path):
    watch = Watch()
    args = {
        "evaluate_during_training": True,
        "evaluate_during_training_steps": 3,
        "eval_batch_size": 1,
        "num_train_epochs": 6,
    }
    progress = train(base, data, tmp_path / "out", valid=data[:3], watch=watch, **args)
    evaluations = progress.evaluations
    assert [record["step"] for record in evaluations] == [3, 4, 6, 8, 9, 12, 15, 16, 18, 20, 21, 24]
    for name in ("step", "language_model_loss", "f1_score"):
        assert [record[name] for record in evaluations] == [
            line[name] for line in watch.evaluations
        ]
    assert set(evaluations[0]) == {"step", "epoch", "language_model_loss", "f1_score"}
    best = ConvAIModel("gpt2", str(tmp_path / "out" / "best_model"), use_cuda=False)
    scores = best.eval_model(str(write(tmp_path, entries(4)[:3])), str(tmp_path / "scores"))
    assert scores["language_model_loss"] == pytest.approx(
        min(record["language_model_loss"] for record in evaluations)
    )


def test_early_stopping_ends_when_nothing_gets_better(base, data, tmp_path, capsys):
    args = {
        "evaluate_during_training": True,
        "evaluate_during_training_steps": 2,
        "evaluate_each_epoch": False,
    }
    args |= {
        "use_early_stopping": True,
        "early_stopping_patience": 2,
        "early_stopping_delta": 100,
        "num_train_epochs": 50,
    }
    progress = train(base, data, tmp_path / "out", valid=data, **args)
    assert (progress.step, progress.finished) == (8, True), (
        "the first evaluation is the best, and three are worse"
    )
    told = "No better validation 3 times: training ends early; the best weights are kept.\n"
    assert capsys.readouterr().err == told
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_scoring_on_the_way_does_not_change_the_training(base, data, tmp_path, whole):
    train(
        base,
        data,
        tmp_path / "out",
        valid=data,
        evaluate_during_training=True,
        evaluate_during_training_steps=1,
    )
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == whole


# ---- half precision: the code path of a GPU, run on the CPU


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_and_resumes(base, data, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(convai_trainer, "half_precision", lambda device: dtype)
    # stock turns it off without a GPU
    monkeypatch.setattr(ConvAIModel, "__init__", with_fp16(ConvAIModel.__init__))
    watch = Watch()
    train(base, data, tmp_path / "whole", watch=watch)
    assert watch.steps[-1]["loss"] < watch.steps[0]["loss"] - 1
    train(base, data, tmp_path / "parts", watch=Watch(6))
    scaler = tmp_path / "parts" / "resume-6" / "scaler.pt"
    assert scaler.exists() == (dtype == torch.float16)
    train(base, data, tmp_path / "parts", resume=True)
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    assert {
        tensor.dtype for tensor in load_file(tmp_path / "whole" / "model.safetensors").values()
    } == {torch.float32}


def with_fp16(init):
    def start(self, *arguments, **options):
        init(self, *arguments, **options)
        self.args.fp16 = True

    return start
