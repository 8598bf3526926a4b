"""The mean of checkpoints: its numbers, its files, what it tells of its making, and what is refused.

Run: `python -m pytest tests/train/test_average.py`
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from persona_bot.checkpoints.files import save_layout
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from tests.full_disk import full_disk
from train import average
from train.hub.model_card import all_data

TRAINED = {
    "base_model": "gpt2",
    "layout": "chat",
    "recipe": "sft",
    "minutes": 1,
    "machine": "m",
    "command": "c",
}


@pytest.fixture
def folders(chat_folder, chat_model, chat_tokenizer, tmp_path) -> list[Path]:
    """Three checkpoints whose weights are 1, 2 and 5 times the tiny model's, as train.finetune leaves them."""
    layout = load_checkpoint(str(chat_folder), "cpu").layout
    found = []
    for factor in (1, 2, 5):
        folder = tmp_path / f"times{factor}"
        shutil.copytree(chat_folder, folder)
        tensors = {
            name: tensor * factor
            for name, tensor in load_file(folder / "model.safetensors").items()
        }
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        save_layout(folder, layout)
        found.append(folder)
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_mean_is_the_mean_and_loads(folders, chat_folder, tmp_path):
    out = tmp_path / "mean"
    average.main([str(folders[0]), f"{folders[1]}:2", f"{folders[2]}:1", "--out", str(out)])
    expected, found = weights(chat_folder), weights(out)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor * (1 + 2 * 2 + 5) / 4)
        assert found[name].dtype == tensor.dtype
    # the recorded sha256 is the mean's
    assert load_checkpoint(str(out), "cpu").layout.name == "chat"


def test_a_mean_of_one_checkpoint_with_itself_is_that_checkpoint(folders, tmp_path):
    average.main([str(folders[1]), f"{folders[1]}:3", "--out", str(tmp_path / "mean")])
    assert all(
        torch.equal(tensor, weights(tmp_path / "mean")[name])
        for name, tensor in weights(folders[1]).items()
    )


def test_adapters_are_averaged_where_all_have_one(folders, tmp_path):
    for k, folder in enumerate(folders[:2]):
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": "gpt2", "lora_alpha": 64})
        )
        save_file(
            {"a": torch.full((2, 3), float(k), dtype=torch.bfloat16)},
            folder / "adapter" / "adapter_model.safetensors",
        )
        (folder / "training.json").write_text(
            json.dumps(TRAINED | {"data": [f"{k}.json"], "command": f"python {k}"})
        )
    average.main([str(folders[0]), str(folders[1] / "adapter"), "--out", str(tmp_path / "mean")])
    found = load_file(tmp_path / "mean" / "adapter_model.safetensors")["a"]
    assert torch.equal(found, torch.full((2, 3), 0.5, dtype=torch.bfloat16))
    facts = json.loads((tmp_path / "mean" / "training.json").read_text())
    assert facts["goes_on_from"]["command"] == "python 0" and all_data(facts) == [
        "1.json",
        "0.json",
    ]
    assert facts["command"] == "python -m train.average times1 adapter --out mean"


def test_what_was_said_of_one_is_not_said_of_the_mean(folders, tmp_path):
    (folders[0] / "README.md").write_text("the best")
    (folders[0] / "scores.json").write_text("{}")
    average.main([str(folders[0]), str(folders[1]), "--out", str(tmp_path / "mean")])
    assert {f.name for f in (tmp_path / "mean").iterdir()}.isdisjoint(
        {"README.md", "scores.json", "training.json"}
    )


@pytest.mark.parametrize(
    "given, words",
    [
        (["times1"], "at least two"),
        (["times1", "nowhere"], "nowhere is no folder"),
        (["times1", "times2:0"], "above 0"),
        (["times1", "times2:-1"], "above 0"),
        (["times1", "times2:nan"], "above 0"),
        (["times1", "times2:some"], "times2:some is no folder"),
        (["times1", "other"], "do not hold the same tensors"),
        (["times1", "damaged"], "damaged or was swapped"),
        (["times1", "empty"], "is no checkpoint"),
    ],
)
def test_what_makes_no_mean_is_refused(
    folders, convai_folder, tmp_path, monkeypatch, capsys, given, words
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(convai_folder, "other")
    shutil.copytree("times2", "damaged")
    shutil.copy2("times1/model.safetensors", "damaged/model.safetensors")
    Path("empty").mkdir()
    with pytest.raises(SystemExit) as end:
        average.main([*given, "--out", "mean"])
    said = capsys.readouterr().err
    assert (
        end.value.code == 2
        and words in said
        and said.count("\n") == 1
        and not Path("mean").exists()
    )


def test_a_full_disk_is_told_with_a_cure_that_this_command_has(folders, tmp_path):
    with full_disk(1_000), pytest.raises(UserError) as caught:
        average.average(folders[:2], [0.5, 0.5], tmp_path / "mean")
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'mean'} cannot be written (")
    assert told.endswith("); free space, or name another --out.")
    assert not (tmp_path / "mean").exists() and not [*tmp_path.glob(".*")]


def test_nothing_is_written_over(folders, tmp_path):
    before = weights(folders[2])
    with pytest.raises(UserError, match="is not empty"):
        average.parse([str(folders[0]), str(folders[1]), "--out", str(folders[2])])
    assert all(torch.equal(tensor, weights(folders[2])[name]) for name, tensor in before.items())
