"""Turns a checkpoint of pickled weights (pytorch_model.bin) into safetensors, without running code that such files can hold.

Run: `python -m train.convert gpt_personachat_cache --out gpt_personachat` (without --out beside the old files)

The archives of 2019 to 2022, which the tutorials of simpletransformers and transfer-learning-conv-ai begin with, hold
pickles only, and often a config.json that does not say which model it is; both are mended. Tensors are read with
`torch.load(weights_only=True)`, which refuses everything that is not a tensor.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from persona_bot.checkpoints.files import read_json
from persona_bot.errors import UserError, exit_on_error
from train.run.checkpoints import reason
from train.run.command import holds_files

WEIGHTS = ("pytorch_model*.bin", "adapter_model.bin", "*.pt", "*.pth")
NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
# a tensor that only one of these has -> (model type, class without and with a ranking head)
KINDS = {
    "tokens_embed.weight": ("openai-gpt", "OpenAIGPTLMHeadModel", "OpenAIGPTDoubleHeadsModel"),
    "wte.weight": ("gpt2", "GPT2LMHeadModel", "GPT2DoubleHeadsModel"),
}


def convert(folder: Path, out: Path | None = None) -> list[Path]:
    """Writes safetensors for every file of pickled weights, into `folder` or with its other files into `out`.

    Raises UserError, and then nothing is left half written.
    """
    pickles = weight_files(folder)
    if out and holds_files(out):
        raise UserError(f"{out} is not empty; name a new folder for --out.")
    target = out or folder
    made: list[Path] = []
    names: dict[str, None] = {}
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in pickles:
            tensors = read_pickle(file)
            names |= dict.fromkeys(tensors)
            path = target / safe_name(file.name)
            temporary = path.with_name(f".{path.name}.new")
            save_file(tensors, temporary, metadata={"format": "pt"})
            os.replace(temporary, path)
            made.append(path)
        if out:
            copy_others(folder, out)
        write_index(folder, target)
        write_config(target, list(names))
    except Exception as error:
        for left in target.glob(".*.safetensors.new"):
            left.unlink()
        if out:  # it was new, or empty
            shutil.rmtree(out, ignore_errors=True)
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        raise UserError(
            f"{target} cannot be written ({reason(error)}); free space, or name another --out."
        ) from error
    return made


def weight_files(folder: Path) -> list[Path]:
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is no folder; name the one that holds pytorch_model.bin.")
    found = {file for pattern in WEIGHTS for file in folder.glob(pattern)}
    pickles = sorted(file for file in found if not file.name.startswith(NO_WEIGHTS))
    if not pickles:
        has = (
            "it is safetensors already"
            if [*folder.glob("*.safetensors")]
            else "it holds no pickled weights"
        )
        raise UserError(
            f"{folder} needs no conversion: {has}; name a folder with pytorch_model.bin."
        )
    return pickles


def read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, each once: of two names for the same numbers the one of the embedding stays."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of torch, pickle, zipfile: whatever the file is instead
        raise UserError(
            f"{file} holds more than tensors, or is damaged, and is not opened; get the weights from a source you trust."
        ) from error
    while isinstance(content, dict) and len(content) and not _is_tensors(content):
        inner = next((content[k] for k in ("state_dict", "model", "module") if k in content), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict) or not _is_tensors(content):
        raise UserError(f"{file} holds no named tensors; name a folder with a model's weights.")
    places: dict[tuple, str] = {}
    for name in sorted(content, key=lambda name: "lm_head" in name):
        tensor = content[name]
        places.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), name)
    kept = set(places.values())
    # the triangle of old attention layers is no weight
    return {
        name: tensor.clone().contiguous()
        for name, tensor in content.items()
        if name in kept
        and not (name.endswith((".attn.bias", ".masked_bias")) and tensor.dim() != 1)
    }


def _is_tensors(content: dict) -> bool:
    return all(isinstance(tensor, torch.Tensor) for tensor in content.values())


def safe_name(name: str) -> str:
    """pytorch_model-00001-of-00002.bin -> model-00001-of-00002.safetensors."""
    return Path(name).stem.replace("pytorch_model", "model") + ".safetensors"


def copy_others(folder: Path, out: Path) -> None:
    """Every file of the folder that is neither pickled nor about the pickles."""
    for file in folder.iterdir():
        if (
            os.path.isfile(file)
            and file.suffix not in (".bin", ".pt", ".pth", ".pkl")
            and ".bin." not in file.name
        ):
            shutil.copy2(file, out / file.name)


def write_index(folder: Path, target: Path) -> None:
    """Which tensor is in which file, where the weights are in several."""
    index = read_json(folder / "pytorch_model.bin.index.json")
    if index:
        places = {name: safe_name(file) for name, file in index.get("weight_map", {}).items()}
        write = json.dumps(index | {"weight_map": places}, indent=2) + "\n"
        (target / "model.safetensors.index.json").write_text(write, encoding="utf-8")


def write_config(target: Path, names: Sequence[str]) -> None:
    """Adds what configurations of 2019 do not say and transformers asks for: the model's type and class."""
    config = read_json(target / "config.json")
    known = [kind for ending, kind in KINDS.items() if any(name.endswith(ending) for name in names)]
    if config is None or not known:
        return
    model_type, plain, double = known[0]
    has_ranking_head = any(name.startswith("multiple_choice_head") for name in names)
    added: dict[str, Any] = {
        "model_type": model_type,
        "architectures": [double if has_ranking_head else plain],
    }
    if has_ranking_head:
        added["num_labels"] = 1
    if new := {key: value for key, value in added.items() if not config.get(key)}:
        text = json.dumps(config | new, indent=2, ensure_ascii=False) + "\n"
        (target / "config.json").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.convert", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="holds pytorch_model.bin")
    parser.add_argument("--out", type=Path, help="a new folder (default: beside the old files)")
    options = parser.parse_args(arguments)
    with exit_on_error():
        made = convert(options.folder, options.out)
    print(f"written: {', '.join(map(str, made))}")
    print(f"chat: python app.py --model {options.out or options.folder}")


if __name__ == "__main__":
    main()
