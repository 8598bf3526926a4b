"""A reply too long for a model is left out of what is scored and drawn, and said; recipe convai: test_convai_surface.py."""

import json
import sys

import pytest

from train import evaluate, sampled
from train.data.dialogues import read_dialogues
from train.data.questions import make_dialogues

LONG = {
    "personality": ["i keep bees."],
    "utterances": [
        {"history": ["hi"], "candidates": ["no .", "hello you ."]},
        {"history": ["hi", "hello you .", "and ?"], "candidates": ["no .", "yes ! " * 300]},
    ],
}
# fits with a short message, and not with those that others got
CROWDED = {
    "personality": ["i keep bees and more bees . " * 10] * 2,
    "utterances": [{"history": ["hi"], "candidates": ["no .", "ok ."]}],
}
TOLD = "1 reply left out, the first: 'yes ! yes ! yes ! yes ! yes ! yes ! yes ' needs "


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mixed.json").write_text(json.dumps([LONG, *make_dialogues(3, seed=5), CROWDED]))
    return str(tmp_path / "mixed.json")


def test_what_does_not_fit_is_not_scored(chat_folder, file, tmp_path, capsys):
    given = ["--model", str(chat_folder), "--data", file, "--json", str(tmp_path / "scores.json")]
    given += ["--only", "nats,served,swap,hits,replies", "--replies", "3", "--as-written"]
    evaluate.main([*given, "--set", "max_tokens=9", "--set", "min_tokens=2"])
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert told.startswith(TOLD) and told.endswith("message, and the model has 512.")
    report = json.loads((tmp_path / "scores.json").read_text())
    assert report["dialogues"] == 5 and {"persona_swap_gain", "generated"} < {*report["scores"]} | {
        *report
    }


def test_where_nothing_fits_training_ends_without_scores_and_the_command_says_so(
    chat_folder, tmp_path, capsys
):
    long = tmp_path / "long.json"
    long.write_text(json.dumps([{**LONG, "utterances": LONG["utterances"][1:]}]))
    assert evaluate.evaluate_folder(chat_folder, read_dialogues(long)) == {}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        evaluate.main(["--model", str(chat_folder), "--data", str(long), "--only", "nats"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        "Not one reply fits in the model's 512 tokens with its persona and message; shorten them."
    )


def test_what_does_not_fit_is_not_drawn(chat_folder, file, tmp_path, monkeypatch, capsys):
    arguments = ["--model", str(chat_folder), "--data", file, "--limit", "1", "--replies", "1"]
    monkeypatch.setattr(sys, "argv", ["", *arguments, "--out", str(tmp_path / "out.json")])
    sampled.main()
    assert TOLD in capsys.readouterr().err
    (made,) = json.loads((tmp_path / "out.json").read_text())
    assert len(made["utterances"]) == 1
