"""No path of the user's machine gets into anything that is published: every way to write one, every place one could stand.

Run: `python -m pytest tests/train/test_facts.py`
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.convai_data import make_bases
from train import finetune
from train.run.facts import base_facts, earlier_facts, is_private_path, public_facts, public_name

EXAMPLE = Path(__file__).parents[2] / "train" / "example_dialogues.json"
SECRET = "alice"
PATHS = [  # all end in a folder or file called `mine`
    "/home/alice/mine",
    "/home/alice/my data/mine",
    "/home/alice/a=b/mine",
    "/mine",
    "/home/alice/mine/",
    "~/alice/mine",
    "~alice/mine",
    "../alice/mine",
    "data/../../alice/mine",
    "file:/home/alice/mine",
    "file:///home/alice/mine",
    "C:\\Users\\alice\\mine",
    "C:/Users/alice/mine",
    "d:\\alice\\mine",
    "\\\\server\\alice\\mine",
    "\\\\?\\C:\\alice\\mine",
    "..\\alice\\mine",
    "$HOME/alice/mine",
    "%USERPROFILE%\\alice\\mine",
]
FORMS = ["{}", "--data={}", "output_dir={}", "--set=cache_dir={}", "['{}', 'x']", '{{"a": "{}"}}']


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", FORMS)
def test_a_private_path_is_cut_to_its_last_name(path, form):
    if form[0] in "[{" and path.startswith(("data/", "$", "%")):
        pytest.skip("within a list these are not told from text")
    made = public_name(form.format(path))
    assert SECRET not in made and "home" not in made and "Users" not in made
    assert made == form.format("mine") or path.endswith("/")


@pytest.mark.parametrize(
    "text",
    [
        "train/example.json",
        "train/example.json:400",
        "user/name",
        "user/name@v1",
        "personachat:400",
        "--epochs",
        "--learning-rate=4e-4",
        "http://127.0.0.1:8000/v1/models",
        "--set=adam_betas=(0.9, 0.999)",
        "1/2 and/or",
        "./mine.json",
        "x86_64 CPU, 2 threads",
        "",
    ],
)
def test_what_is_no_private_path_stays(text):
    assert public_name(text) == text and not is_private_path(text)


def test_facts_are_cut_at_any_depth():
    facts = {"a": [{"command": "python -m x --data=/home/alice/mine --out ~/alice/mine"}], "n": 3}
    assert public_facts(facts) == {"a": [{"command": "python -m x --data=mine --out mine"}], "n": 3}


def test_a_base_in_a_folder_claims_no_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "gpt2").mkdir(parents=True)
    assert base_facts("some/gpt2") == {"base_model": "gpt2", "base_is_folder": True}
    assert base_facts("openai-community/gpt2") == {"base_model": "openai-community/gpt2"}
    assert base_facts("/gone/alice/mine") == {"base_model": "mine", "base_is_folder": True}


def test_earlier_facts_of_any_trained_folder(tmp_path):
    facts = {"command": "x --data=/home/alice/mine", "data": ["/home/alice/mine"]}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "training.json").write_text(json.dumps(facts))
    cut = {"goes_on_from": {"command": "x --data=mine", "data": ["mine"]}}
    assert earlier_facts(str(tmp_path)) == cut
    assert earlier_facts(str(tmp_path / "adapter")) == {}
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert earlier_facts(str(tmp_path / "adapter")) == cut


@pytest.mark.parametrize("recipe", ["sft", "convai"])
def test_no_file_that_a_run_leaves_for_others_names_a_private_folder(tmp_path, monkeypatch, recipe):
    home = tmp_path / SECRET
    (home / "data").mkdir(parents=True)
    shutil.copy(EXAMPLE, home / "data" / "mine.json")
    base, out = make_bases(home)["gpt2"], home / "out"
    monkeypatch.chdir(home)
    given = [f"--data={home}/data/mine.json", "--data", "data/mine.json:3", f"--model={base}"]
    given += ["--limit", "4"]
    given += ["--out", str(out), "--score-dialogues", "1", f"--valid={home}/data/mine.json:1"]
    if recipe == "convai":
        given += ["--set", "num_train_epochs=1", "--set", f"cache_dir={home}/cache"]
    else:
        given += ["--epochs", "1"]
    finetune.main([*given, "--recipe", recipe])
    texts = {
        file.name: file.read_text(encoding="utf-8")
        for file in out.iterdir()
        # what publishing leaves out may say where it lies
        if file.suffix in (".json", ".md", ".jsonl", ".jinja") and file.name != "model_args.json"
    }
    assert {"training.json", "README.md", "scores.json", "config.json", "log.jsonl"} <= set(texts)
    assert [name for name, text in texts.items() if SECRET in text or str(tmp_path) in text] == []
    assert json.loads(texts["training.json"])["data"] == ["mine.json", "mine.json:3"]
