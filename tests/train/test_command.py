"""What the small commands of train/ say to wrong options: one sentence, exit code 2, before any work.

Run: `python -m pytest tests/train/test_command.py`
"""

import importlib
import re
import sys
from pathlib import Path

import pytest

from persona_bot.errors import UserError
from train.data.sources import held_out_part, read_source
from train.hub.folder import find_files
from train.run.command import check_outputs, holds_files, write
from train.run.facts import base_facts, earlier_facts, source_name


def told(command: str, arguments: list[str], monkeypatch, capsys) -> str:
    """The last line on stderr of a command that ends with code 2."""
    monkeypatch.setattr(sys, "argv", [command, *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"train.{command}").main()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "command, arguments",
    [
        ("everyday", ["--out"]),
        ("questions", ["--out"]),
        ("sampled", ["--model", "nobody/nothing", "--data", "nothing.json", "--out"]),
        ("dialogues", ["train/example_dialogues.json", "--to"]),
        ("export", ["nobody/nothing", "--gguf"]),
        ("evaluate", ["--model", "nobody/nothing", "--only", "probes", "--json"]),
    ],
)
def test_a_place_that_cannot_be_written(command, arguments, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "none" / "x.json")
    said = told(command, [*arguments, out], monkeypatch, capsys)
    assert said == f"The folder of {out} does not exist; make it first or write somewhere else."


@pytest.mark.parametrize(
    "command, arguments",
    [
        ("everyday", ["--out", "x.json", "--personas"]),
        ("examples", []),
        ("dialogues", []),
        ("sampled", ["--out", "x.json", "--data"]),
    ],
)
def test_dialogues_that_are_not_there(command, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = told(command, [*arguments, "nothing.json"], monkeypatch, capsys)
    assert "nothing.json" in said and "name a file of dialogues" in said
    assert not [*tmp_path.iterdir()], "an empty file was left"


@pytest.mark.parametrize("number", ["0", "-3", "1.5", "many"])
@pytest.mark.parametrize(
    "command, flag", [("everyday", "--count"), ("questions", "--count"), ("sampled", "--replies")]
)
def test_a_number_that_counts_nothing(command, flag, number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [f"{flag}={number}", "--out", "x.json"]
    said = told(command, arguments, monkeypatch, capsys)
    assert said.endswith(f"argument {flag}: must be a whole number from 1 on, not {number}")


TEXTS = "README.md docs/*.md train/*.py train/*/*.py".split()


def test_every_command_that_is_named_is_there_and_says_its_name(monkeypatch, capsys):
    texts = [file.read_text(encoding="utf-8") for text in TEXTS for file in Path().glob(text)]
    named = {
        name for text in texts for name in re.findall(r"-m ((?:train|benchmarks)(?:\.\w+)+)", text)
    }
    assert {"train.examples", "train.publish", "benchmarks.training"} <= named
    for name in sorted(named):
        monkeypatch.setattr(sys, "argv", [f"{name.split('.')[-1]}.py", "--help"])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(name).main()
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: python -m {name} ")


def test_a_file_that_is_there_stays_as_it_is(tmp_path):
    kept, new = tmp_path / "kept.json", tmp_path / "new.json"
    kept.write_text("precious")
    check_outputs(kept, new, None)
    assert kept.read_text() == "precious" and not new.exists()
    write(new, "ä")
    assert new.read_bytes() == "ä".encode()


@pytest.mark.parametrize(
    "command, arguments",
    [
        ("dialogues", ["own.json:1", "--to", "own.json"]),
        ("everyday", ["--personas", "own.json", "--out", "./own.json"]),
        ("sampled", ["--data", "own.json", "--out", "own.json"]),
        ("export", ["nobody/nothing", "--gguf", "mine.Modelfile"]),
    ],
)
def test_nothing_is_written_over_what_is_read_or_written(
    command, arguments, tmp_path, monkeypatch, capsys
):
    text = Path("train/example_dialogues.json").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("own.json").write_text(text, encoding="utf-8")
    said = told(command, arguments, monkeypatch, capsys)
    assert said.endswith("a name of its own.") and said.startswith(Path(arguments[-1]).name)
    assert Path("own.json").read_text(encoding="utf-8") == text and len([*tmp_path.iterdir()]) == 1


def test_an_example_is_shown_of_whatever_training_takes(chat_folder, monkeypatch, capsys):
    name = "train/example_dialogues.json:1"
    importlib.import_module("train.examples").main([name, "--model", str(chat_folder)])
    assert "  -> " in capsys.readouterr().out
    fetched = "train.data.personachat.fetch_personachat"
    monkeypatch.setattr(fetched, lambda: Path("train/example_dialogues.json"))
    importlib.import_module("train.examples").main(["personachat", "--model", str(chat_folder)])
    assert "  -> " in capsys.readouterr().out


LONG = "i am a lighthouse keeper " * 12  # no file can have this name, and the system says so


def test_a_name_that_no_file_can_have_is_none_that_is_there(monkeypatch):
    assert not holds_files(Path(LONG))
    assert (source_name(LONG), base_facts(LONG)) == (LONG, {"base_model": LONG})
    assert earlier_facts(LONG) == {}
    for reader in (find_files, lambda name: read_source(str(name), "train")):
        with pytest.raises(UserError, match="is no folder|cannot be read"):
            reader(Path(LONG))
    with pytest.raises(UserError, match="cannot be read"):
        held_out_part(LONG)


def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match="cannot be read .Permission denied.; name another folder"):
        holds_files(tmp_path)
