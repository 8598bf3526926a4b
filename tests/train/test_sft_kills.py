"""Recipe sft killed, at random moments and inside saves: equal bytes at the end.

Run: `python -m pytest tests/train/test_sft_kills.py` (recipe convai's: test_convai_training.py)

The children that are killed are made by fork, so that they have everything imported.
"""

import functools
import os
import random
import shutil
import signal
import sys
import time

import pytest

from tests.sft_tiny import STEPS, train_and_save
from train.run.log import read_log


@pytest.fixture
def job(convai_tokenizer):
    return functools.partial(train_and_save, convai_tokenizer)


@pytest.fixture
def whole(job, tmp_path) -> bytes:
    """The weights of an uninterrupted run."""
    job(tmp_path / "whole", resume=False)
    assert [line["step"] for line in read_log(tmp_path / "whole") if "loss" in line] == list(
        range(1, STEPS + 1)
    )
    return (tmp_path / "whole" / "model.safetensors").read_bytes()


def in_child(run) -> int:
    """Calls `run` in a forked child; returns its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            run()
            status = 0
        finally:
            os._exit(status)
    return pid


def ended(pid: int) -> int:
    """The child's exit status; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_20_kills_at_random_moments_lose_nothing(job, whole, tmp_path):
    """Each goes on where the one before was killed. A run that got to its end is compared, and another begins."""
    draw, out, kills = random.Random(0), tmp_path / "out", 0
    started = time.monotonic()
    assert ended(in_child(lambda: job(tmp_path / "timed"))) == 0
    long = time.monotonic() - started
    while kills < 20:
        child = in_child(lambda: job(out))
        time.sleep(draw.uniform(0.1, 0.8) * long)
        os.kill(child, signal.SIGKILL)
        status = ended(child)
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        if status == 0 or (out / "persona_layout.json").exists():  # written last
            assert (out / "model.safetensors").read_bytes() == whole
            shutil.rmtree(out)
    assert ended(in_child(lambda: job(out))) == 0
    assert (out / "model.safetensors").read_bytes() == whole
    assert [line["step"] for line in read_log(out) if "loss" in line] == list(range(1, STEPS + 1))


def test_kills_inside_a_save_lose_nothing(job, whole, tmp_path):
    """The child kills itself before the n-th time that Python opens, renames or removes something of a checkpoint."""
    out = tmp_path / "out"

    def run(moment: int) -> None:
        seen = [0]

        def hook(event: str, arguments) -> None:
            if event in (
                "open",
                "os.rename",
                "os.remove",
                "os.mkdir",
                "os.rmdir",
                "shutil.rmtree",
            ) and is_saving(arguments[0]):
                seen[0] += 1
                if seen[0] == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        job(out)
        (tmp_path / "count").write_text(str(seen[0]))

    def is_saving(path) -> bool:
        return isinstance(path, str | os.PathLike) and any(
            part.startswith(".") for part in os.path.relpath(path, out).split(os.sep)[:1]
        )

    assert ended(in_child(lambda: run(-1))) == 0
    events = int((tmp_path / "count").read_text())
    assert (out / "model.safetensors").read_bytes() == whole
    shutil.rmtree(out)
    draw, kills = random.Random(0), 0
    while kills < 12:
        status = ended(in_child(lambda: run(draw.randrange(1, events // 3))))
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        if status == 0:
            assert (out / "model.safetensors").read_bytes() == whole
            shutil.rmtree(out)
    assert ended(in_child(lambda: run(-1))) == 0
    assert (out / "model.safetensors").read_bytes() == whole
    left = sorted(path.name for path in out.iterdir() if path.name.startswith(".") or path.is_dir())
    assert left == ["best", "checkpoint-12", "checkpoint-9"]
