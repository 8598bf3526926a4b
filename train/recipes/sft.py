"""Recipe "sft": transformers' Trainer on any causal model, whole or through a LoRA adapter.

Run: `python -m train.finetune --recipe sft` (this module only trains; finetune.py reads, scores and writes the card).

One sequence per conversation, every reply supervised, the history in full. Several conversations share a row, so no row
is padded (packed_trainer.py).

    outputs/checkpoint-150/    what Trainer needs to go on, every save_every steps; the newest two
    outputs/best/              the trained weights of the best validation so far
"""

import gc
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from persona_bot.device import is_out_of_memory
from persona_bot.errors import UserError
from train.data.examples import Example, pack
from train.recipes.fused import fused_lora
from train.recipes.packed_trainer import (
    IDENTITY,
    PackedTrainer,
    autocast,
    check_model,
    collate,
    fingerprint,
    on,
    summed_loss,
    training_arguments,
)
from train.recipes.sft_settings import SftSettings
from train.run.checkpoints import mend, newest_good, remove_checkpoints
from train.run.log import LOG_FILE, KeepBest, Progress, StopOnSignal, StopSignals
from train.run.speed import matmul_rate, step_flops

# on resume; rows a step may not
MAY_CHANGE = (
    "epochs",
    "batch_rows",
    "accumulate",
    "save_every",
    "patience",
    "gradient_checkpointing",
    "report_to",
)


def add_lora(model, settings: SftSettings):
    """The model with a fresh adapter on every linear layer but the output; the frozen base in bfloat16 where training is."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # the adapter itself stays float32
    try:
        model = get_peft_model(model.to(torch.bfloat16) if settings.bf16 else model, config)
    except ValueError as error:  # Mamba's projections, or a model without a linear layer
        raise UserError(
            f"LoRA cannot train {model.config.model_type} models; add --lora-rank 0 to train every weight, or choose another base."
        ) from error
    # or each save asks the Hub what the base looks like
    model.peft_config["default"].base_model_name_or_path = ""
    return model


def train_sft(
    model,
    train: Sequence[Example],
    valid: Sequence[Example],
    out: Path,
    settings: SftSettings,
    resume: bool = False,
) -> tuple[PackedTrainer, SftSettings]:
    """Trains `model` (with its adapter, if any) in place; the best validation's weights are in it at the end.

    Out of memory halves the rows of a forward pass, doubles the passes of a step and goes on from the last checkpoint.
    Ctrl-C and SIGTERM save and return, with `trainer.stopped_by_signal`. Returns the trainer and the settings in force.
    Raises UserError when the loss or a weight is no number, when the disk is full, or when even one row does not fit in memory.
    """
    with training_arguments(settings, out, bool(valid)).main_process_first(local=False):
        mend(out)
        if not resume:
            forget(out)
    start = {
        name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad
    }
    set_up_attention(model, train, settings, training_arguments(settings, out, False).device)
    with fused_lora(model), StopSignals() as signals:
        while True:
            trainer = make_trainer(model, train, valid, out, settings, signals)
            try:
                trainer.train(
                    resume_from_checkpoint=find_checkpoint(out, trainer.identity)
                    if resume
                    else None
                )
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            settings = smaller(settings, trainer.args.world_size)
            print(
                f"Memory ran out: now {settings.batch_rows} rows a pass and {settings.accumulate} passes a step.",
                file=sys.stderr,
            )
            del trainer
            free_memory(model)
            model.load_state_dict(start, strict=False)
            resume = True  # from what this run saved, if it did
    trainer.stopped_by_signal = signals.asked
    trainer.signal_number = signals.number
    KeepBest.restore(model, out)
    trainer.accelerator.wait_for_everyone()
    # a process that ends inside its group is torn down by force, and may abort
    trainer.accelerator.end_training()
    return trainer, settings


def set_up_attention(
    model, examples: Sequence[Example], settings: SftSettings, device: torch.device
) -> None:
    """The model on its device, with attention by conversation where that serves it; check_model's errors."""
    longest = max(examples, key=lambda example: len(example.ids))
    model.to(device)
    with autocast(device, settings.bf16 and device.type == "cuda"):
        check_model(model, getattr(longest, "example", longest))


def make_trainer(
    model, train, valid, out: Path, settings: SftSettings, signals: StopSignals
) -> PackedTrainer:
    rows = pack(train, settings.row_length)
    arguments = training_arguments(settings, out, bool(valid))
    same = {name: value for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    same |= {
        "rows_a_step": settings.batch_rows * settings.accumulate * arguments.world_size,
        "data": fingerprint(train),
    }
    return PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=pack(valid, settings.row_length) if valid else None,
        data_collator=partial(collate, rival_weight=settings.rival_weight),
        callbacks=[
            Progress(out, sum(e.supervised for e in train)),
            KeepBest(out, settings.patience),
            StopOnSignal(signals),
        ],
        identity=same,
        bf16=settings.bf16,
    )


def find_checkpoint(out: Path, identity: dict) -> str | None:
    """The newest whole checkpoint; raises UserError when its run had other settings or data, and would not be continued."""
    folder = newest_good(out)
    if folder is None:
        return None
    saved = (
        json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
        if (folder / IDENTITY).exists()
        else {}
    )
    for name, value in saved.items():
        if identity.get(name) != value:
            what = (
                "other training data"
                if name == "data"
                else f"{name} {value}, now it is {identity.get(name)}"
            )
            raise UserError(
                f"{folder} was trained with {what}; resume with the same, or start anew without --resume."
            )
    return str(folder)


def forget(out: Path) -> None:
    """Removes what an earlier run would resume from, so that nothing of it gets into this one."""
    remove_checkpoints(out)
    for name in (LOG_FILE, "training.json"):
        (out / name).unlink(missing_ok=True)


def smaller(settings: SftSettings, processes: int = 1) -> SftSettings:
    """Half the rows a pass (a third of 3, ..), twice the passes a step: the same step in less memory."""
    rows = settings.batch_rows
    if rows == 1:
        raise UserError(
            "One row does not fit in memory; lower --row-length, add --gradient-checkpointing, or choose a smaller base model."
        )
    if processes > 1:
        raise UserError(
            "A process ran out of memory, which the others cannot wait for; halve --batch-rows and double --accumulate."
        )
    factor = next(k for k in range(2, rows + 1) if rows % k == 0)
    return replace(settings, batch_rows=rows // factor, accumulate=settings.accumulate * factor)


def free_memory(model) -> None:
    model.zero_grad(set_to_none=True)
    gc.collect()  # a Trainer refers to itself
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Cost(NamedTuple):
    """What training takes, and how well it uses the machine."""

    seconds: float
    gigabytes: float
    mfu: float  # share of the machine's own matrix rate (train/run/speed.py)
    tokens_per_s: float


def estimate(
    model, rows: Sequence[Sequence[Example]], settings: SftSettings, device: torch.device
) -> Cost | None:
    """What training will take: the longest forward and backward pass is run and timed, its gradients dropped.

    None where memory does not suffice for it: training will shrink the batch.
    """
    longest = sorted(rows, key=lambda row: -sum(len(e.ids) for e in row))[: settings.batch_rows]
    batch = on(collate(longest, settings.rival_weight), device)
    try:
        set_up_attention(model, longest[0], settings, device)
        for _ in range(2):  # the first warms up
            started = time.monotonic()
            with fused_lora(model):
                with autocast(device, settings.bf16):
                    total, count = summed_loss(model, batch)
                (total / count).backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.monotonic() - started
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        free_memory(model)
    # AdamW's two moments in float32
    optimizer = 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    memory = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else psutil.Process().memory_info().rss
    )
    ids = batch["input_ids"].numel()
    rate = matmul_rate(torch.bfloat16 if settings.bf16 else torch.float32, device)
    return Cost(
        seconds * math.ceil(len(rows) / settings.batch_rows) * settings.epochs,
        (memory + optimizer) / 1e9,
        step_flops(model, ids, count) / seconds / rate,
        ids / seconds,
    )


def count_steps(rows: int, settings: SftSettings, processes: int = 1) -> int:
    """Optimizer steps of a whole run, as Trainer counts them."""
    passes = math.ceil(rows / (settings.batch_rows * processes))
    return math.ceil(math.ceil(passes / settings.accumulate) * settings.epochs)
