"""Recipe sft killed, at random moments and inside saves: equal bytes at the end.

Run: `python -m pytest tests/train/test_sft_kills.py` (recipe convai's: test_convai_kills.py)
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.children import child, ended, kill, status_of
from tests.sft_tiny import STEPS, train_and_save, train_uninterrupted
from train.run.log import read_log


def job(tokenizer, out: Path, resume: bool = True) -> None:
    torch.set_num_threads(1)
    train_and_save(tokenizer, out, resume)


def job_killed_in_a_save(tokenizer, out: Path, moment: int, count: Path) -> None:
    """`job` that kills itself before the n-th time that Python opens, renames or removes something of a checkpoint."""
    seen = 0

    def hook(event: str, arguments) -> None:
        nonlocal seen
        if event in EVENTS and is_saving(arguments[0]):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    def is_saving(path) -> bool:
        return isinstance(path, str | os.PathLike) and any(
            part.startswith(".") for part in os.path.relpath(path, out).split(os.sep)[:1]
        )

    sys.addaudithook(hook)
    job(tokenizer, out)
    count.write_text(str(seen))


EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@pytest.fixture(scope="module")
def whole(convai_tokenizer, tmp_path_factory) -> bytes:
    """The weights of an uninterrupted run."""
    torch.set_num_threads(1)
    out = train_uninterrupted(convai_tokenizer, tmp_path_factory.mktemp("whole"))
    return (out / "model.safetensors").read_bytes()


def test_kills_at_random_moments_lose_nothing(convai_tokenizer, whole, tmp_path):
    """Each goes on where the one before was killed. A run that got to its end is compared, and another begins."""
    draw, out, kills = random.Random(0), tmp_path / "out", 0
    assert status_of(job, convai_tokenizer, tmp_path / "first") == 0  # the server is ready now
    started = time.monotonic()
    assert status_of(job, convai_tokenizer, tmp_path / "timed") == 0
    long = time.monotonic() - started
    for _ in range(100):
        with child(job, convai_tokenizer, out) as process:
            time.sleep(draw.uniform(0.1, 0.8) * long)
            kill(process)
            status = ended(process)
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        if status == 0 or (out / "persona_layout.json").exists():  # written last
            assert (out / "model.safetensors").read_bytes() == whole
            shutil.rmtree(out)
        if kills == 12:
            break
    assert kills == 12
    assert status_of(job, convai_tokenizer, out) == 0
    assert (out / "model.safetensors").read_bytes() == whole
    assert [line["step"] for line in read_log(out) if "loss" in line] == list(range(1, STEPS + 1))


def test_kills_inside_a_save_lose_nothing(convai_tokenizer, whole, tmp_path):
    out, count = tmp_path / "out", tmp_path / "count"

    def run(moment: int) -> int:
        return status_of(job_killed_in_a_save, convai_tokenizer, out, moment, count)

    assert run(-1) == 0
    events = int(count.read_text())
    assert (out / "model.safetensors").read_bytes() == whole
    shutil.rmtree(out)
    draw, kills = random.Random(0), 0
    for _ in range(100):
        status = run(draw.randrange(1, events // 3))
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        if status == 0:
            assert (out / "model.safetensors").read_bytes() == whole
            shutil.rmtree(out)
        if kills == 8:
            break
    assert kills == 8
    assert run(-1) == 0
    assert (out / "model.safetensors").read_bytes() == whole
    left = sorted(path.name for path in out.iterdir() if path.name.startswith(".") or path.is_dir())
    assert left == ["best", "checkpoint-12", "checkpoint-9"]
