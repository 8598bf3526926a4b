"""Weights of which a part is not there are refused: transformers would draw it at random, and the model babble.

Run: `python -m pytest tests/persona_bot/test_missing_tensors.py`
"""

import json
import shutil
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from persona_bot import load_model
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from train.export import export_gguf


def refused(folder: Path, missing: str) -> None:
    for load in (load_checkpoint, load_model):
        with pytest.raises(UserError, match=f"{folder} has no tensor {missing}; download or train"):
            load(str(folder), "cpu")


@pytest.fixture
def whole(convai_folder, tmp_path) -> Path:
    return shutil.copytree(convai_folder, tmp_path / "model")


def test_names_with_a_prefix_of_torch_compile(whole):
    tensors = load_file(whole / "model.safetensors")
    save_file({f"_orig_mod.{k}": v for k, v in tensors.items()}, whole / "model.safetensors")
    refused(whole, "lm_head.weight")


def test_a_layer_that_is_not_there(whole):
    tensors = load_file(whole / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if ".h.1." not in name}
    save_file(kept, whole / "model.safetensors")
    refused(whole, "transformer.h.1.attn.c_attn.bias")


def test_an_index_that_names_a_part_of_the_tensors(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    first = {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}
    second = {name: tensor for name, tensor in tensors.items() if name not in first}
    save_file(first, folder / "model-00001-of-00002.safetensors", {"format": "pt"})
    save_file(second, folder / "model-00002-of-00002.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(first, "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "model.layers.1.input_layernorm.weight")
    index["weight_map"] |= dict.fromkeys(second, "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    load_model(str(folder), "cpu")


def test_a_gguf_that_lacks_a_layer(chat_folder, tmp_path, monkeypatch):
    checkpoint = load_checkpoint(str(chat_folder), "cpu")
    state = checkpoint.model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if ".layers.1." not in name}
    monkeypatch.setattr(checkpoint.model, "state_dict", lambda: kept)
    export_gguf(checkpoint, tmp_path / "tiny.gguf", "f32")
    refused(tmp_path, "model.layers.1.input_layernorm.weight")


def test_an_adapter_that_was_cut_off_is_one_sentence(chat_folder, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(chat_folder)
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(chat_folder)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for load in (load_checkpoint, load_model):
        with pytest.raises(UserError, match="cannot be loaded as a checkpoint .*; download or"):
            load(str(tmp_path), "cpu")
