"""Recipe sft stopped and resumed, alone and in two processes: equal bytes at the end, and what a resumed run refuses.

Run: `python -m pytest tests/train/test_sft_resume.py` (kills: test_sft_kills.py; recipe convai's: test_convai_training.py)
"""

import copy
import faulthandler
import functools
import json
import os
import shutil
import signal
import socket
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from persona_bot.errors import UserError
from tests.children import LIMIT, child
from tests.sft_tiny import (
    RUN,
    digest,
    examples_of,
    gpt2,
    settings,
    train_and_save,
    train_uninterrupted,
)
from train import finetune
from train.recipes import sft
from train.recipes.sft import add_lora, train_sft
from train.run.checkpoints import latest_valid
from train.run.log import StopSignals, read_log

EXAMPLE = Path(__file__).parents[2] / "train" / "example_dialogues.json"


@pytest.fixture
def job(convai_tokenizer):
    return functools.partial(train_and_save, convai_tokenizer)


@pytest.fixture(scope="module")
def finished(convai_tokenizer, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run."""
    return train_uninterrupted(convai_tokenizer, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def whole(finished, tmp_path) -> bytes:
    """Its weights; a copy of the folder is there to spoil."""
    shutil.copytree(finished, tmp_path / "whole")
    return (finished / "model.safetensors").read_bytes()


# ---- stopped


class At(TrainerCallback):
    def __init__(self, step: int, do):
        self.step, self.do = step, do

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            self.do()


@pytest.fixture
def at_step(monkeypatch):
    """at_step(3, do): the next trainers call do() in step 3."""
    made = sft.make_trainer

    def set_up(step, do):
        def make(*args):
            trainer = made(*args)
            trainer.callback_handler.callbacks.insert(0, At(step, do))
            return trainer

        monkeypatch.setattr(sft, "make_trainer", make)

    return set_up


@pytest.mark.parametrize("kind, number", [("gpt2", signal.SIGTERM), ("lora", signal.SIGINT)])
def test_a_signal_saves_and_the_rest_ends_in_the_same_bytes(
    convai_tokenizer, chat_model, chat_tokenizer, tmp_path, at_step, kind, number
):
    def model():
        if kind == "gpt2":
            return gpt2(convai_tokenizer)
        return add_lora(copy.deepcopy(chat_model), settings(lora_rank=4, lora_dropout=0.2))

    tokenizer = convai_tokenizer if kind == "gpt2" else chat_tokenizer
    examples = examples_of(tokenizer)
    wanted = settings(
        epochs=6,
        row_length=80 if kind == "gpt2" else 128,
        save_every=5,
        lora_rank=4 * (kind == "lora"),
        lora_dropout=0.2,
    )
    plain, stopped, resumed = model(), model(), model()
    trainer, _ = train_sft(plain, examples, [], tmp_path / "plain", wanted)
    steps = trainer.state.global_step
    before = signal.getsignal(number)
    at_step(7, lambda: os.kill(os.getpid(), number))
    trainer, _ = train_sft(stopped, examples, [], tmp_path / "out", wanted)
    assert trainer.stopped_by == number and trainer.state.global_step == 7 < steps
    assert latest_valid(tmp_path / "out").name == "checkpoint-7"
    assert signal.getsignal(number) is before
    at_step(0, None)
    trainer, _ = train_sft(resumed, examples, [], tmp_path / "out", wanted, resume=True)
    assert trainer.state.global_step == steps
    assert digest(resumed) == digest(plain) != digest(stopped)
    assert [line["step"] for line in read_log(tmp_path / "out")] == list(range(1, steps + 1))


def test_a_second_ctrl_c_acts_at_once(convai_tokenizer, tmp_path, at_step):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(2, twice)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_sft(gpt2(convai_tokenizer), examples_of(convai_tokenizer), [], tmp_path, RUN)
    assert signal.getsignal(signal.SIGINT) is before


# ---- resumed


def test_a_damaged_checkpoint_is_passed_over(job, whole, tmp_path):
    out = tmp_path / "whole"
    for damage in ("byte", "file", "manifest"):
        newest = out / "checkpoint-12"
        if damage == "byte":
            content = bytearray((newest / "optimizer.pt").read_bytes())
            content[len(content) // 2] ^= 1
            (newest / "optimizer.pt").write_bytes(content)
        else:
            (newest / {"file": "scheduler.pt", "manifest": "manifest.json"}[damage]).unlink()
        assert latest_valid(out).name == "checkpoint-9"
        job(out)
        assert (out / "model.safetensors").read_bytes() == whole
        assert latest_valid(out).name == "checkpoint-12"


def test_a_finished_run_resumes_to_itself(job, whole, tmp_path):
    log = (tmp_path / "whole" / "log.jsonl").read_bytes()
    job(tmp_path / "whole")
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == whole
    assert (tmp_path / "whole" / "log.jsonl").read_bytes() == log


def test_resuming_nothing_starts_at_the_beginning(job, whole, tmp_path):
    job(tmp_path / "new", resume=True)
    assert (tmp_path / "new" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    "change, told",
    [
        ({"learning_rate": 0.5}, "learning_rate 0.01, now it is 0.5"),
        ({"seed": 7}, "seed 42, now it is 7"),
        ({"accumulate": 2}, "rows_a_step 1, now it is 2"),
    ],
)
def test_resuming_with_other_settings_is_refused(convai_tokenizer, whole, tmp_path, change, told):
    other = type(RUN)(**{**vars(RUN), **change})
    with pytest.raises(UserError) as refused:
        train_sft(
            gpt2(convai_tokenizer),
            examples_of(convai_tokenizer),
            [],
            tmp_path / "whole",
            other,
            resume=True,
        )
    folder = tmp_path / "whole" / "checkpoint-12"
    assert (
        str(refused.value)
        == f"{folder} was trained with {told}; resume with the same, or start anew without --resume."
    )


def test_resuming_with_other_data_is_refused(convai_tokenizer, whole, tmp_path):
    with pytest.raises(
        UserError,
        match="checkpoint-12 was trained with other training data; resume with the same, or ",
    ):
        train_sft(
            gpt2(convai_tokenizer),
            examples_of(convai_tokenizer)[::-1],
            [],
            tmp_path / "whole",
            RUN,
            resume=True,
        )


def test_early_stopping_remembers_over_a_resume(convai_tokenizer, tmp_path):
    """How often it has waited, and what the best was; a run that had ended early stays ended."""
    examples = examples_of(convai_tokenizer)
    wanted = type(RUN)(**{**vars(RUN), "epochs": 30, "patience": 2, "learning_rate": 0.1})
    plain = gpt2(convai_tokenizer)
    trainer, _ = train_sft(plain, examples, examples[:1], tmp_path, wanted)
    ended_at, best = (
        trainer.state.global_step,
        (tmp_path / "best" / "weights.safetensors").read_bytes(),
    )
    assert ended_at < trainer.state.max_steps
    saved = json.loads((latest_valid(tmp_path) / "trainer_state.json").read_text())[
        "stateful_callbacks"
    ]["KeepBest"]["attributes"]
    losses = [line["eval_loss"] for line in read_log(tmp_path) if "eval_loss" in line]
    assert saved == {"best": min(losses), "waited": 2}
    shutil.rmtree(latest_valid(tmp_path))
    for _ in range(2):  # from the checkpoint before, then from the last
        resumed = gpt2(convai_tokenizer)
        trainer, _ = train_sft(resumed, examples, examples[:1], tmp_path, wanted, resume=True)
        assert digest(resumed) == digest(plain)
        assert trainer.state.global_step in (ended_at, ended_at + 1)
        assert (tmp_path / "best" / "weights.safetensors").read_bytes() == best
    assert latest_valid(tmp_path).name == f"checkpoint-{ended_at}"


def test_signals_outside_the_main_thread_are_left_alone():
    before, inside = signal.getsignal(signal.SIGTERM), []
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) is not before

    def enter():
        with StopSignals() as signals:
            inside.append((signal.getsignal(signal.SIGTERM), signals.asked))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(60)
    assert inside == [(before, False)] and signal.getsignal(signal.SIGTERM) is before


# ---- several processes


def one_of_two(rank: int, port: int, arguments: list[str], said: Path) -> None:
    """What `accelerate launch` starts twice, told so by its environment."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    with said.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        faulthandler.dump_traceback_later(LIMIT - 20, file=file)  # if it hangs, where
        finetune.main(arguments)
        faulthandler.cancel_dump_traceback_later()


# once in some twenty runs of all tests the second process hung at its end, inside or after gloo's; why is not known
@pytest.mark.flaky(reruns=1)
def test_two_processes_take_the_same_steps_as_one(chat_folder, tmp_path):
    """One row each instead of two passes."""
    given = ["--data", str(EXAMPLE), "--model", str(chat_folder), "--limit", "9", "--epochs", "1"]
    given += ["--lora-rank", "0", "--no-bf16", "--learning-rate", "1e-2", "--save-every", "3"]
    given += ["--score-dialogues", "0"]
    shared = [*given, "--out", str(tmp_path / "two"), "--accumulate", "1"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = [tmp_path / "first.txt", tmp_path / "second.txt"]
    with (
        child(one_of_two, 0, port, shared, said[0]) as first,
        child(one_of_two, 1, port, shared, said[1]) as second,
    ):
        for process in (first, second):
            process.join(LIMIT)
        statuses = [process.exitcode for process in (first, second)]  # None: it hangs
    texts = "".join(file.read_text() for file in said)
    assert statuses == [0, 0], texts[-3000:]
    assert texts.count("done: python app.py") == 1
    finetune.main([*given, "--out", str(tmp_path / "one"), "--accumulate", "2"])
    one, two = (read_log(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in two] == [line["step"] for line in one] == [1, 2, 3, 3, 4, 4]
    for mine, other in zip(one, two, strict=True):
        key = "loss" if "loss" in mine else "eval_loss"
        assert other[key] == pytest.approx(mine[key], rel=1e-5)
