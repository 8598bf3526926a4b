"""Pickled checkpoints become safetensors: the same numbers, no code run; archives as 2019 left them chat and train then.

Run: `python -m pytest tests/train/test_convert.py`
"""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2DoubleHeadsModel, OpenAIGPTDoubleHeadsModel

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.convai_data import make_bases
from tests.full_disk import full_disk
from train.convert import convert, main

CLASSES = {"gpt": OpenAIGPTDoubleHeadsModel, "gpt2": GPT2DoubleHeadsModel}


def pickled(source: Path, folder: Path, kind: str) -> Path:
    """A checkpoint as the archives of 2019 are: pytorch_model.bin, vocab.json, merges.txt, and a config without its type."""
    model = CLASSES[kind].from_pretrained(source).eval()
    folder.mkdir()
    state = model.state_dict()
    state["lm_head.weight"] = model.get_input_embeddings().weight.data  # tied
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 320, 320)
    torch.save(state, folder / "pytorch_model.bin")
    torch.save({"lr": 1}, folder / "model_training_args.bin")
    config = json.loads((source / "config.json").read_text())
    for key in ("model_type", "architectures", "transformers_version", "dtype"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = source / "vocab.json"
    if vocabulary.exists():
        shutil.copy(vocabulary, folder)
        shutil.copy(source / "merges.txt", folder)
    else:
        whole = json.loads((source / "tokenizer.json").read_text())["model"]
        (folder / "vocab.json").write_text(json.dumps(whole["vocab"]))
        merges = [" ".join(pair) for pair in whole["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.parametrize("kind", ["gpt", "gpt2"])
@pytest.mark.parametrize("beside", [True, False])
def test_an_archive_of_2019_trains_and_its_numbers_are_the_same(bases, tmp_path, kind, beside):
    from train.recipes.convai import ConvAIModel, model_type_of

    old = pickled(bases[kind], tmp_path / "old", kind)
    told = rf"^{old} holds pickled weights only, .* `python -m train.convert {old}` makes"
    with pytest.raises(UserError, match=told):
        load_checkpoint(str(old), "cpu")
    new = old if beside else tmp_path / "new"
    assert convert(old, None if beside else new) == [new / "model.safetensors"]
    assert (new / "pytorch_model.bin").exists() == beside
    made = load_file(new / "model.safetensors")
    assert "lm_head.weight" not in made and not [
        name for name in made if name.endswith("attn.bias") and made[name].dim() > 1
    ]
    before = CLASSES[kind].from_pretrained(bases[kind]).state_dict()
    after = CLASSES[kind].from_pretrained(new).state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert model_type_of(new) == kind
    model = ConvAIModel(kind, str(new))
    assert "multiple_choice_head.summary.weight" in dict(model.model.named_parameters())
    reply, _ = model.interact_single("hello", [], ["i sail."])
    assert isinstance(reply, str)


def test_a_trained_folder_of_stock_chats_after_conversion(convai_model, convai_folder, tmp_path):
    old = shutil.copytree(convai_folder, tmp_path / "old")
    state = load_file(old / "model.safetensors")
    (old / "model.safetensors").unlink()
    torch.save(state, old / "pytorch_model.bin")
    main([str(old), "--out", str(tmp_path / "new")])
    checkpoint = load_checkpoint(str(tmp_path / "new"), "cpu", double_heads=True)
    assert checkpoint.ranking_head and checkpoint.layout.name == "convai"
    for name, tensor in convai_model.state_dict().items():
        made = checkpoint.model.state_dict()[name]
        assert torch.equal(tensor.to(made.dtype), made)
    reply = LocalModel.plain(checkpoint).reply(
        Persona("", ("i sail.",)), ["hello"], Settings(seed=1)
    )
    assert "".join(reply) == reply.text


def test_shards_and_their_index(tmp_path):
    for k in (1, 2):
        torch.save(
            {f"w{k}": torch.full((2,), float(k))}, tmp_path / f"pytorch_model-0000{k}-of-00002.bin"
        )
    places = {f"w{k}": f"pytorch_model-0000{k}-of-00002.bin" for k in (1, 2)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {"total_size": 16}, "weight_map": places})
    )
    made = convert(tmp_path)
    assert [file.name for file in made] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"w1": made[0].name, "w2": made[1].name}
    assert load_file(made[1])["w2"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("beside", [True, False])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, beside):
    folder = tmp_path / "old"
    folder.mkdir()
    torch.save({"w": torch.ones(20_000)}, folder / "pytorch_model.bin")
    out = None if beside else tmp_path / "new"
    with full_disk(40_000), pytest.raises(UserError) as caught:
        convert(folder, out)
    told = str(caught.value)
    assert told.startswith(f"{out or folder} cannot be written (") and "\n" not in told
    assert told.endswith("; free space, or name another --out.")
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "pytorch_model.bin"]


def test_a_damaged_second_file_leaves_no_new_folder(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    torch.save({"w": torch.ones(2)}, folder / "pytorch_model-00001-of-00002.bin")
    (folder / "pytorch_model-00002-of-00002.bin").write_text("no tensors")
    with pytest.raises(UserError, match="holds more than tensors, or is damaged"):
        convert(folder, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


class Evil:
    """What runs a command as soon as a plain unpickler reads it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    "how", ["torch", "pickle", "old torch", "text", "empty", "list", "numbers"]
)
def test_what_is_no_tensors_is_refused_and_runs_nothing(tmp_path, how, capsys):
    folder, mark = tmp_path / "old", tmp_path / "ran"
    folder.mkdir()
    file = folder / "pytorch_model.bin"
    if how in ("torch", "old torch"):
        torch.save(
            {"w": torch.ones(2), "x": Evil(mark)},
            file,
            _use_new_zipfile_serialization=how == "torch",
        )
    elif how == "pickle":
        file.write_bytes(pickle.dumps(Evil(mark)))
    elif how in ("text", "empty"):
        file.write_text("hello" if how == "text" else "")
    else:
        torch.save([torch.ones(2)] if how == "list" else {"lr": 0.1}, file)
    with pytest.raises(SystemExit) as ended:
        main([str(folder), "--out", str(tmp_path / "new")])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1 and str(file) in told
    assert not mark.exists() and not [*tmp_path.rglob("*.safetensors*")]


def test_folders_that_cannot_be_converted(tmp_path, chat_folder):
    with pytest.raises(UserError, match="needs no conversion: it is safetensors already"):
        convert(chat_folder)
    with pytest.raises(UserError, match="is no folder; name the one that holds pytorch_model.bin"):
        convert(tmp_path / "none")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="it holds no pickled weights"):
        convert(tmp_path)
    torch.save({"w": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="is not empty; name a new folder"):
        convert(tmp_path, tmp_path)
