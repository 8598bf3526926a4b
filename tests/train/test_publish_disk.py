"""Publishing from a disk of this machine: files of somebody else's, files of another shape, no room for copies.

Run: `python -m pytest tests/train/test_publish_disk.py`
"""
# ruff: noqa: F811 (fixtures of test_publish.py)

import json
import os
import tempfile
from pathlib import Path

import pytest

from persona_bot.checkpoints.load import load_checkpoint
from tests.full_disk import full_disk
from tests.train.test_publish import clone, commits, hub, refusal, trained  # noqa: F401
from train.average import average
from train.publish import publish


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_somebody_elses_is_told(hub, trained, tmp_path, monkeypatch, name):
    access = os.access
    monkeypatch.setattr(os, "access", lambda f, how: Path(f).name != name and access(f, how))
    told = f"{trained / name} is not yours to read; its owner can change that with `chmod -R a+rX {trained}`."
    assert refusal(load_checkpoint, str(trained)) == told
    assert refusal(average, [trained, trained], [0.5, 0.5], tmp_path / "mean") == told
    assert refusal(publish, trained, "user/mine") == told
    assert hub.requests == []


@pytest.mark.parametrize("sums", [[1], {"model.safetensors": 5}, "x"])
def test_a_layout_file_of_another_shape_is_told(hub, trained, sums):
    (trained / "persona_layout.json").write_text(json.dumps({"layout": "chat", "sha256": sums}))
    assert str(trained) in refusal(publish, trained, "user/mine")
    assert hub.requests == []


def test_no_room_for_copies_is_told_and_nothing_is_published(hub, trained, monkeypatch):
    (trained / "scores.json").write_text('{"model": "/home/me/mine"}')  # is uploaded as a copy
    with full_disk(0):
        told = refusal(publish, trained, "user/mine")
    assert f"free space on the disk of {tempfile.gettempdir()}, or set TMPDIR" in told
    assert commits(hub) == ["initial commit"]


def test_no_room_for_the_files_of_a_space_is_told(hub, trained, clone):
    publish(trained, "user/mine")
    with full_disk(0):
        told = refusal(publish, trained, "user/mine", False, "user/mine-chat")
    assert told.startswith("What is uploaded cannot be copied (File too large)")
