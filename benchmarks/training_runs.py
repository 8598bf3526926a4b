"""One measured run of each kind that benchmarks/training.py compares, in a process of its own."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.children import peak_gb

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# so that the fast ones take long enough to be timed
EPOCHS = {"stock": 1, "convai": 2, "trl": 4, "sft": 8}
CONVAI = {
    "train_batch_size": 6,
    "no_save": True,
    "silent": True,
    "manual_seed": 0,
    "overwrite_output_dir": True,
}


def measure(kind: str, folder: Path, bf16: bool) -> dict:
    """EPOCHS[kind] epochs in this process."""
    os.chdir(folder)  # stock leaves folders where it stands
    runs = {
        "stock": run_stock,
        "convai": run_convai,
        "trl": lambda: run_trl(bf16),
        "sft": lambda: run_sft(bf16),
    }
    tokens, seconds = runs[kind]()
    result = {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "peak_gb": peak(),
    }
    return result | (work_of_sft(bf16) if kind == "sft" else {})


def run_stock() -> tuple[int, float]:
    """(supervised tokens, seconds)."""
    alone = {
        "no_cache": True,
        "process_count": 1,
        "use_multiprocessing": False,
        "save_steps": -1,
        "save_model_every_epoch": False,
    }
    model = stock_model({**CONVAI, **alone, "num_train_epochs": EPOCHS["stock"]})
    model.train_model("data.json", output_dir="stock", show_running_loss=False)
    return EPOCHS["stock"] * supervised(model.tokenizer), model.seconds


def stock_model(args: dict) -> Any:
    """ConvAIModel on ./base. Patched: the reader that transformers dropped, and the adding of special tokens."""
    import torch

    from train.recipes.convai_base import LoadedModel, StockConvAIModel

    def read(tokenizer: Any, path: str, *_: Any, **__: Any) -> Any:
        def ids(value: Any) -> Any:
            if isinstance(value, str):
                return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(value))
            return (
                {k: ids(v) for k, v in value.items()}
                if isinstance(value, dict)
                else [ids(v) for v in value]
            )

        return ids(json.loads(Path(path).read_text(encoding="utf-8")))

    class Stock(StockConvAIModel):
        add_special_tokens_ = LoadedModel.add_special_tokens_
        seconds = 0.0

        def train(self, *args: Any, **options: Any) -> Any:
            started = time.monotonic()
            result = super().train(*args, **options)
            self.seconds = time.monotonic() - started
            return result

    vars(sys.modules[StockConvAIModel.__module__])["get_dataset"] = read
    return Stock("gpt2", "base", args=args, use_cuda=torch.cuda.is_available())


def run_convai() -> tuple[int, float]:
    from train.data.dialogues import read_dialogues
    from train.recipes.convai import train_convai
    from train.run.log import Progress, read_log

    args = {**CONVAI, "num_train_epochs": EPOCHS["convai"]}
    tokens = EPOCHS["convai"] * supervised(load_base("base").tokenizer)
    progress = Progress(Path("convai"), tokens // EPOCHS["convai"])
    train_convai(
        "base", read_dialogues("data.json"), None, Path("convai"), args, callbacks=[progress]
    )
    return tokens, tokens / read_log(Path("convai"))[-1]["tokens_per_s"]


def run_sft(bf16: bool) -> tuple[int, float]:
    from train.recipes.sft import train_sft
    from train.run.log import read_log

    base = load_base("base", bf16)
    examples = sft_examples(base)
    train_sft(base.model, examples, [], Path("sft"), base.settings)
    tokens = EPOCHS["sft"] * sum(e.supervised for e in examples)
    return tokens, tokens / read_log(Path("sft"))[-1]["tokens_per_s"]


def run_trl(bf16: bool) -> tuple[int, float]:
    """SFTTrainer with packing on the ids that sft learns from."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    base = load_base("base", bf16)
    examples = sft_examples(base)
    settings = SFTConfig(
        output_dir="trl",
        packing=True,
        max_length=base.settings.row_length,
        per_device_train_batch_size=base.settings.batch_rows,
        gradient_accumulation_steps=base.settings.accumulate,
        num_train_epochs=EPOCHS["trl"],
        gradient_checkpointing=False,
        bf16=bf16,
        use_cpu=not on_gpu(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        base.model,
        settings,
        train_dataset=Dataset.from_list([{"input_ids": e.ids} for e in examples]),
        processing_class=base.tokenizer,
    )
    started = time.monotonic()
    trainer.train()
    return EPOCHS["trl"] * sum(e.supervised for e in examples), time.monotonic() - started


def work_of_sft(bf16: bool) -> dict[str, float]:
    """Operations a supervised token needs, and operations a second of plain matrix products."""
    import torch

    from train.run.speed import matmul_rate, step_flops

    base = load_base("base", bf16)
    examples = sft_examples(base)
    supervised = sum(e.supervised for e in examples)
    flops = step_flops(base.model, sum(len(e.ids) for e in examples), supervised)
    device = torch.device("cuda" if on_gpu() else "cpu")
    rate = matmul_rate(torch.bfloat16 if bf16 else torch.float32, device)
    return {"flops_per_token": flops / supervised, "matmul_rate": rate}


def sft_examples(base: argparse.Namespace) -> list:
    from train.data.dialogues import read_dialogues
    from train.data.examples import dialogue_examples

    return dialogue_examples(base.layout, read_dialogues("data.json"), base.settings.row_length)


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def load_base(folder: str, bf16: bool = True) -> argparse.Namespace:
    from train.recipes import base_model
    from train.recipes.sft_settings import SftSettings

    settings = SftSettings(epochs=EPOCHS["sft"], lora_rank=0, bf16=bf16, save_every=10**9)
    model, tokenizer, layout, settings = base_model.load_base(folder, settings)
    return argparse.Namespace(model=model, tokenizer=tokenizer, layout=layout, settings=settings)


def supervised(tokenizer: "PreTrainedTokenizerBase") -> int:
    """How many tokens the gold replies of the data have, each with its end."""
    from persona_bot.layouts import find_layout
    from train.data.dialogues import read_dialogues

    layout = find_layout(tokenizer)
    return sum(
        len(layout.encode(u.candidates[-1])) + 1
        for d in read_dialogues("data.json")
        for u in d.utterances
    )


def peak() -> float:
    """GB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return peak_gb()
