"""A short version of `make attack`, against the real page in a process of its own and with a tiny model.

Run: `python -m pytest tests/page/test_attack.py`
"""

import os

import pytest

from attack.__main__ import attack, table
from attack.target import PLACES, Target


@pytest.mark.timeout(600)
def test_nothing_that_a_hostile_client_does_is_written_told_or_felt_by_others(chat_folder):
    report = attack(str(chat_folder), calls=300, sessions=80, visitors=4)
    assert set(report["closed addresses"]) == {"404"}
    calls = report["300 malformed calls"]
    assert (calls["5xx"], calls["dropped"], sum(calls.values())) == (0, 0, 300)
    sessions = report["80 forged sessions"]
    assert sessions["another client is answered"] and sessions["refused"] > 0
    assert report["files written"] == []
    assert report["tracebacks in the log"] == 0
    assert report["lines in the log"] < 40  # a kind of fault is told once a minute
    assert "| tried | result |" in table(report)


def test_the_watch_sees_what_is_written_and_what_comes_and_goes(tmp_path):
    for place in PLACES:
        (tmp_path / place).mkdir()
        os.utime(tmp_path / place, ns=(0, 0))
    target, kept = Target(os.getpid(), "", tmp_path), tmp_path / "tmp" / "kept"
    before = target.files()
    assert target.changed(before) == []
    kept.write_text("words")
    assert target.changed(before) == [str(kept.parent), str(kept)]
    kept.unlink()
    assert target.changed(before) == [str(kept.parent)], "its folder tells that it was there"
