"""train/run/checkpoints.py: a folder is whole or not there. (Kills inside a save are in test_convai_training.py.)"""

import json
import os

import pytest

from persona_bot.errors import UserError
from train.run.checkpoints import (
    is_valid,
    keep_newest,
    latest_valid,
    repair,
    write_files_atomically,
    write_folder_atomically,
)


def writer(text: str):
    def write(folder):
        (folder / "inner").mkdir()
        (folder / "a.txt").write_text(text)
        (folder / "inner" / "b.txt").write_text(text)

    return write


def test_a_folder_is_written_with_its_hashes_and_replaced_whole(tmp_path):
    target = tmp_path / "out" / "checkpoint-1"
    for text in ("one", "two"):
        write_folder_atomically(target, writer(text))
        assert (target / "a.txt").read_text() == (target / "inner" / "b.txt").read_text() == text
        assert sorted(json.loads((target / "manifest.json").read_text())) == [
            "a.txt",
            "inner/b.txt",
        ]
        assert is_valid(target)
        assert [path.name for path in target.parent.iterdir()] == ["checkpoint-1"]


def test_a_failing_write_leaves_the_old_folder_and_no_rest(tmp_path):
    target = tmp_path / "checkpoint-1"
    write_folder_atomically(target, writer("old"))

    def full(folder):
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError) as caught:
        write_folder_atomically(target, full)
    assert (
        str(caught.value)
        == f"{target} cannot be written (No space left on device); earlier ones are intact: free space, then --resume."
    )
    assert is_valid(target) and (target / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_errors_for_the_user_pass_unchanged(tmp_path):
    def refuse(folder):
        raise UserError("a weight is none.")

    with pytest.raises(UserError, match="^a weight is none.$"):
        write_folder_atomically(tmp_path / "checkpoint-1", refuse)


@pytest.mark.parametrize(
    "damage", ["change", "cut", "remove", "no manifest", "empty manifest", "wrong manifest"]
)
def test_a_damaged_folder_is_not_good(tmp_path, damage):
    for step in (9, 10):
        write_folder_atomically(tmp_path / f"checkpoint-{step}", writer("text"))
    assert latest_valid(tmp_path) == tmp_path / "checkpoint-10", "by number, not by letter"
    folder = tmp_path / "checkpoint-10"
    {
        "change": lambda: (folder / "a.txt").write_text("texd"),
        "cut": lambda: (folder / "inner" / "b.txt").write_text("tex"),
        "remove": lambda: (folder / "a.txt").unlink(),
        "no manifest": lambda: (folder / "manifest.json").unlink(),
        "empty manifest": lambda: (folder / "manifest.json").write_text("{}"),
        "wrong manifest": lambda: (folder / "manifest.json").write_text("[1]"),
    }[damage]()
    assert not is_valid(folder)
    assert latest_valid(tmp_path) == tmp_path / "checkpoint-9"
    assert latest_valid(tmp_path, "resume-*") is None


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 20, 3, 100):
        write_folder_atomically(tmp_path / f"resume-{step}", writer("x"))
    keep_newest(tmp_path, "resume-*", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resume-100", "resume-20"]


def test_a_swap_that_was_killed_between_its_renames_is_mended(tmp_path):
    write_folder_atomically(tmp_path / "best_model", writer("old"))
    (tmp_path / "best_model").rename(tmp_path / ".best_model.old")
    repair(tmp_path)
    assert is_valid(tmp_path / "best_model")
    write_folder_atomically(tmp_path / ".best_model.old", writer("older"))
    repair(tmp_path)
    assert (tmp_path / "best_model" / "a.txt").read_text() == "old", "what is there is newer"


def test_files_are_swapped_among_others_with_the_marker_last(tmp_path, monkeypatch):
    (tmp_path / "diary.txt").write_text("dear")
    order, replace = [], os.replace
    monkeypatch.setattr(
        os, "replace", lambda source, target: (order.append(target.name), replace(source, target))
    )
    names = ["persona_layout.json", "model.safetensors", "config.json"]
    for text in ("1", "2"):
        write_files_atomically(
            tmp_path, lambda folder, text=text: [(folder / name).write_text(text) for name in names]
        )
        assert order[-3:] == ["config.json", "model.safetensors", "persona_layout.json"]
        assert {(tmp_path / name).read_text() for name in names} == {text}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "diary.txt"])
