"""Recipe convai killed, at random moments and inside saves, and on a full disk: equal bytes at the end.

Run: `python -m pytest tests/train/test_convai_kills.py` (recipe sft's: test_sft_kills.py)
"""

import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.children import child, ended, kill, status_of
from tests.convai_data import QUIET, Watch, entries, make_bases, write

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")

from persona_bot.errors import UserError  # noqa: E402  (all of these after the skip)
from train.data.dialogues import read_dialogues  # noqa: E402
from train.recipes.convai import train_convai  # noqa: E402
from train.run import checkpoints  # noqa: E402

# 4 epochs of 4 steps
ARGS = {
    **QUIET,
    "num_train_epochs": 4,
    "train_batch_size": 3,
    "learning_rate": 1e-2,
    "save_steps": 3,
}


def train(base, data, out, watch=None, resume=False, **args):
    torch.set_num_threads(1)
    return train_convai(base, data, None, out, {**ARGS, **args}, resume, [watch or Watch()])


class Slow(Watch):
    def on_step_end(self, args, state, control, **_):
        time.sleep(0.02)


# ---- jobs of the children


def slowly(base, data, out: Path) -> None:
    train(base, data, out, Slow(), resume=True)


def killed_in_a_save(base, data, out: Path, moment: int) -> None:
    """Kills itself at the n-th call to the disk while a checkpoint is being written, or the last model."""
    calls = 0

    def killing(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for module, name in (
        (os, "fsync"),
        (os, "replace"),
        (shutil, "rmtree"),
        (torch, "save"),
        (checkpoints, "sha256"),
    ):
        setattr(module, name, killing(getattr(module, name)))
    train(base, data, out, resume=True, save_best_model=False)


def on_a_full_disk(base, data, out: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # the weights take 60 kB
    with pytest.raises(UserError) as caught:
        train(base, data, out, Watch(99), resume=True)
    message = str(caught.value)
    assert message.startswith(f"{out / 'resume-6'} cannot be written (")
    assert message.endswith("free space, then --resume.")


# ---- tests


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """A GPT-2 with dropout, so that a resumed run needs the random state too."""
    return str(make_bases(tmp_path_factory.mktemp("dropout"), dropout=0.1)["gpt2"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    # four candidates: two are drawn each epoch
    return read_dialogues(write(tmp_path_factory.mktemp("data"), entries(4)))


@pytest.fixture(scope="module")
def whole(base, data, tmp_path_factory) -> bytes:
    """The weights of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    assert train(base, data, out).step == 16
    return (out / "model.safetensors").read_bytes()


def test_kills_at_random_moments_lose_nothing(base, data, tmp_path, whole):
    draw, out, kills = random.Random(0), tmp_path / "out", 0
    assert status_of(slowly, base, data, tmp_path / "first") == 0  # the server is ready now
    started = time.monotonic()
    assert status_of(slowly, base, data, tmp_path / "timed") == 0
    long = time.monotonic() - started
    for _ in range(100):
        with child(slowly, base, data, out) as process:
            time.sleep(draw.uniform(0.1, 0.8) * long)
            kill(process)
            status = ended(process)
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        if status == 0 or (out / "persona_layout.json").exists():
            assert (out / "model.safetensors").read_bytes() == whole
            shutil.rmtree(out)
        if kills == 8:
            break
    assert kills == 8
    assert status_of(slowly, base, data, out) == 0
    assert (out / "model.safetensors").read_bytes() == whole


def test_kills_at_every_point_of_a_save_lose_nothing(base, data, tmp_path, whole):
    out, kills = tmp_path / "out", 0
    for moment in [*range(3, 60, 9), *range(60, 200, 25)]:
        if moment in (3, 60):
            shutil.rmtree(out, ignore_errors=True)
            train(base, data, out, Watch(13 if moment == 3 else 5))
        status = status_of(killed_in_a_save, base, data, out, moment)
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        if status == 0:
            assert (out / "model.safetensors").read_bytes() == whole
    assert kills >= 7
    assert status_of(killed_in_a_save, base, data, out, -1) == 0
    assert (out / "model.safetensors").read_bytes() == whole
    assert not [
        path
        for path in out.rglob("*")
        if path.name.startswith(".") or path.name.startswith("resume-")
    ]


def test_a_full_disk_is_one_sentence_and_keeps_the_last_checkpoint(base, data, tmp_path, whole):
    out = tmp_path / "out"
    train(base, data, out, Watch(4))
    assert status_of(on_a_full_disk, base, data, out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["resume-3", "resume-4"]
    train(base, data, out, resume=True)
    assert (out / "model.safetensors").read_bytes() == whole
