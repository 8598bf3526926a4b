"""A checkpoint whose weights are the weighted mean of others' that were trained from one another (a model soup).

Run: `python -m train.average outputs/third outputs/second:0.5 --out outputs/mean`

Where each training step reads a few conversations, the weights end somewhere around the best place; the mean of several
ends is nearer to it than any of them, and costs nothing when chatting (Wortsman et al. 2022, "Model soups"). Adapters are
averaged factor by factor, which is near to the mean of their products as long as each went on from the one before.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from persona_bot.checkpoints.files import (
    LAYOUT_FILE,
    check_files,
    read_json,
    read_layout_file,
    sha256,
)
from persona_bot.errors import UserError, exit_on_error
from train.hub.sources import all_data
from train.run.checkpoints import MANIFEST, write_folder_atomically
from train.run.command import holds_files
from train.run.facts import earlier_facts, machine, public_command, write_json

# they are about one of them
NOT_COPIED = (
    "README.md",
    "EXPERIMENTS.md",
    "TRANSCRIPTS.md",
    "scores.json",
    "training.json",
    MANIFEST,
)


def average(
    folders: Sequence[Path], shares: Sequence[float], out: Path, facts: dict | None = None
) -> None:
    """Writes `out`: the mean of the folders' weights, by shares that sum to 1, the first one's other files, and the facts.

    Raises UserError where the folders do not hold tensors of the same names and shapes.
    """
    for folder in folders:
        check_files(folder)
    first = folders[0]
    for folder in folders[1:]:
        if shapes(folder) != shapes(first) or settings(folder) != settings(first):
            raise UserError(
                f"{folder} and {first} do not hold the same tensors; average checkpoints that were trained from one another."
            )

    def write(new: Path) -> None:
        for file in first.iterdir():
            if file.is_file() and file.suffix != ".safetensors" and file.name not in NOT_COPIED:
                shutil.copy2(file, new / file.name)
        for name in shapes(first):
            save_file(
                mean([folder / name for folder in folders], shares),
                new / name,
                metadata={"format": "pt"},
            )
        marker = read_layout_file(first)
        if (first / LAYOUT_FILE).exists():
            write_json(
                new / LAYOUT_FILE,
                marker | {"sha256": {name: sha256(new / name) for name in shapes(first)}},
            )
        if facts:
            write_json(new / "training.json", facts)

    write_folder_atomically(out, write, "free space, or name another --out")


def mean(files: Sequence[Path], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    """The weighted mean of each tensor, summed in float32, in the first file's type."""
    sums: dict[str, torch.Tensor] = {}
    for file, share in zip(files, shares, strict=True):
        for name, tensor in load_file(file).items():
            sums[name] = sums.get(name, 0.0) + share * tensor.float()
    return {name: sums[name].to(tensor.dtype) for name, tensor in load_file(files[0]).items()}


def shapes(folder: Path) -> dict[str, dict[str, list[int]]]:
    """{weight file: {tensor: its shape}} of a folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found[path.name] = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return found


def settings(folder: Path) -> list:
    """What else must be the same for weights to mean the same: an adapter's base and scale."""
    config = read_json(folder / "adapter_config.json") or {}
    return [config.get(name) for name in ("base_model_name_or_path", "lora_alpha", "use_rslora")]


def facts_of(folders: Sequence[Path], arguments: Sequence[str], started: float) -> dict | None:
    """training.json of the mean: it goes on from the first, and its licences are those of all; None where the first has none."""
    known = [earlier_facts(str(folder)).get("goes_on_from") for folder in folders]
    if not known[0]:
        return None
    first = known[0]
    told = all_data(first)
    return {
        "base_model": first["base_model"],
        "layout": first["layout"],
        "recipe": first["recipe"],
        "data": list(
            dict.fromkeys(
                name for other in known[1:] if other for name in all_data(other) if name not in told
            )
        ),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "machine": machine(),
        "command": public_command("python -m train.average", arguments),
        "goes_on_from": first,
    }


def parse(arguments: Sequence[str]) -> tuple[list[Path], list[float], Path]:
    """(folders, shares that sum to 1, out). Raises UserError for what makes no mean."""
    parser = argparse.ArgumentParser(
        prog="python -m train.average",
        description="Average checkpoints that were trained from one another.",
    )
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="FOLDER[:WEIGHT]",
        help="folders of train.finetune, or of adapters",
    )
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    options = parser.parse_args(arguments)
    if len(options.checkpoints) < 2:
        raise UserError("A mean needs at least two checkpoints; name another folder.")
    if holds_files(options.out):
        raise UserError(f"{options.out} is not empty; name a new folder for --out.")
    given = [weighted(text) for text in options.checkpoints]
    folders = [folder for folder, _ in given]
    weights = [weight for _, weight in given]
    adapters = [folder / "adapter" for folder in folders]
    if all(
        (folder / "adapter_config.json").exists() or adapter.is_dir()
        for folder, adapter in zip(folders, adapters, strict=True)
    ):
        folders = [
            adapter if adapter.is_dir() else folder
            for folder, adapter in zip(folders, adapters, strict=True)
        ]
    return folders, [weight / sum(weights) for weight in weights], options.out


def weighted(text: str) -> tuple[Path, float]:
    """`outputs/third:0.5` -> (folder, 0.5); 1.0 without a number."""
    stem, _, number = text.rpartition(":")
    try:
        folder, weight = (Path(stem), float(number)) if stem else (Path(text), 1.0)
    except ValueError:
        folder, weight = Path(text), 1.0
    if not 0 < weight < float("inf"):
        raise UserError(f"{text}: a weight must be a number above 0; leave it out for 1.")
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is no folder; name one that train.finetune wrote.")
    return folder, weight


def main(arguments: Sequence[str] | None = None) -> None:
    given, started = sys.argv[1:] if arguments is None else list(arguments), time.monotonic()
    with exit_on_error():
        folders, shares, out = parse(given)
        average(folders, shares, out, facts_of(folders, given, started))
    print(f"done: python -m train.evaluate --model {out} --data FILE; python app.py --model {out}")


if __name__ == "__main__":
    main()
