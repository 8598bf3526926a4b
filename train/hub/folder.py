"""What of a checkpoint folder is published: the files that loading needs, card, scores and facts, without private paths.

A folder that only loads (of the notebook's class, of stock simpletransformers, an adapter/) gets what it lacks: the
layout file, and a card that says what is not known.
"""

import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import errors
from huggingface_hub.utils import validate_repo_id

from persona_bot.checkpoints.files import LAYOUT_FILE, check_readable, read_layout_file, save_layout
from persona_bot.checkpoints.hub import PICKLED, has_hash
from persona_bot.errors import UserError
from train.run.facts import is_private_path, public_facts, read_facts, write_json

WEIGHTS = ("*.safetensors", "*.gguf")
UPLOADED = (
    *WEIGHTS,
    "model.safetensors.index.json",
    *("config.json", "generation_config.json", "adapter_config.json", "persona_layout.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"),
    *("README.md", "scores.json", "training.json", "loss.png", "log.jsonl"),
)
ADAPTER = "adapter"  # the LoRA alone, in the folder that holds it merged
NEVER = (
    *(f"*{ending}" for ending in PICKLED),
    "optimizer*",
    "scheduler*",
    "rng_state*",
    "trainer_state*",
)
OURS = ("training.json", "scores.json")  # any string in them may hold a path
_NAMELESS = rb'(--model |"text-generation", ")FOLDER\b'  # as train/hub/model_card.py writes it
CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")


def find_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint by name. Raises UserError for a folder that is none, or no finished and portable one."""
    if not (os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)):
        raise UserError(
            f"{folder} is no folder that can be read; name the one that holds the checkpoint."
        )
    files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    has_weights = any(fnmatch(name, pattern) for name in files for pattern in WEIGHTS)
    pickles = [name for name in files if any(fnmatch(name, pattern) for pattern in NEVER)]
    # what stock leaves beside the weights; it stays here
    pickles = [name for name in pickles if not (has_weights and name == "training_args.bin")]
    if pickles:
        some = ", ".join(pickles[:3])
        convert = (
            ""
            if has_weights
            else f"; `python -m train.convert {folder}` makes safetensors of weights"
        )
        raise UserError(
            f"{folder} holds training state or pickles ({some}); publish the finished checkpoint, or delete them{convert}."
        )
    if not has_weights:
        raise UserError(
            f"{folder} is no checkpoint: it holds no *.safetensors or *.gguf file; name the folder that train.finetune wrote."
        )
    check_readable(files.values())
    _check(folder, files)
    chosen = [n for n in files if any(fnmatch(n, pattern) for pattern in UPLOADED)]
    return {name: files[name] for name in chosen}


def adapter_files(folder: Path) -> dict[str, Path]:
    """What lies in `adapter/` of a trained folder, by its name on the Hub; {} without one.

    One whose base only this machine has stays here, and a line says so: it would be of no use to anybody.
    """
    config = folder / ADAPTER / "adapter_config.json"
    if not config.is_file():
        return {}
    if not _base_is_public(config):
        print(f"{config.parent} stays here: it names a base that exists on this machine only.")
        return {}
    return {f"{ADAPTER}/{name}": path for name, path in find_files(config.parent).items()}


def complete(folder: Path, repo_id: str) -> None:
    """Writes the layout file and the model card where the folder lacks them. Raises UserError for what does not load."""
    if (folder / LAYOUT_FILE).exists() and (folder / "README.md").exists():
        return
    from persona_bot.checkpoints.load import load_checkpoint
    from train.hub.model_card import model_card

    checkpoint = load_checkpoint(str(folder), double_heads=True)
    try:
        if not (folder / LAYOUT_FILE).exists():
            save_layout(folder, checkpoint.layout)
        if not (folder / "README.md").exists():
            report = read_facts(folder / "scores.json")
            card = model_card(checkpoint, known_facts(folder), report, repo_id)
            (folder / "README.md").write_text(card, encoding="utf-8")
            print(f"{folder / 'README.md'} is new; edit it and publish again if you know more.")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); copy it, and publish the copy."
        ) from error


def known_facts(folder: Path) -> dict:
    """training.json of the folder, or of the one around an adapter; {} with an adapter's base where there is none."""
    is_adapter = (folder / "adapter_config.json").exists()
    places = [folder, *([folder.absolute().parent] if is_adapter else [])]
    facts = next(
        (read_facts(p / "training.json") for p in places if (p / "training.json").exists()), {}
    )
    if is_adapter:
        base = read_facts(folder / "adapter_config.json").get("base_model_name_or_path")
        facts = {"base_model": base, "adapter_only": True} | facts
    return public_facts(facts)


def without_private_paths(files: dict[str, Path], copies: Path) -> dict[str, Path]:
    """The files, those that name folders of this machine replaced by copies in `copies` that do not."""
    cleaned = dict(files)
    for name, path in files.items():
        if path.name not in (*OURS, *CONFIGS):
            continue
        content = read_facts(path)
        public = public_facts(content) if path.name in OURS else _without_paths(content)
        if public != content:
            cleaned[name] = copies / name.replace("/", "-")
            write_json(cleaned[name], public)
    return cleaned


def with_name(files: dict[str, Path], repo_id: str, copies: Path) -> dict[str, Path]:
    """The files, a card that was written before the model had a name replaced by a copy in `copies` that has it."""
    named = dict(files)
    for name, path in files.items():
        if path.name != "README.md":
            continue
        card = path.read_bytes()
        told = re.sub(_NAMELESS, lambda found: found[1] + repo_id.encode(), card)
        if told != card:
            named[name] = copies / name.replace("/", "-")
            named[name].write_bytes(told)
    return named


def _without_paths(config: dict) -> dict:
    """A configuration without the entries that only say where something lay; templates and tokens stay as they are."""
    return {
        key: value
        for key, value in config.items()
        if not (
            isinstance(value, str)
            and key.endswith(("path", "file", "dir"))
            and is_private_path(value)
        )
    }


def _check(folder: Path, files: dict[str, Path]) -> None:
    for name, digest in read_layout_file(folder).get("sha256", {}).items():
        if name not in files or not has_hash(files[name], str(digest)):
            raise UserError(
                f"{folder / name} is damaged or was swapped: its sha256 is not the recorded one; train it again."
            )
    if "adapter_config.json" in files and not _base_is_public(files["adapter_config.json"]):
        cure = "publish the base first and name it there as user/name"
        raise UserError(
            f"{folder}/adapter_config.json names a base that exists on this machine only; {cure}."
        )


def _base_is_public(config: Path) -> bool:
    """Whether an adapter's base is a name on the Hub and no folder."""
    base = str(_read_json(config).get("base_model_name_or_path"))
    try:
        validate_repo_id(base)
    except errors.HFValidationError:
        return False
    return not os.path.exists(base)


def _read_json(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not a JSON object; train the checkpoint again.") from error
