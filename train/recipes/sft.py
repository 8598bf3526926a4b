"""Recipe "sft": transformers' Trainer on any causal model, whole or through a LoRA adapter.

Run: `python -m train.finetune --recipe sft` (this module only trains; finetune.py reads, scores and writes the card).

One sequence per conversation, every reply supervised, the history in full. Several conversations share a row, so no row
is padded (packed_trainer.py).

    outputs/checkpoint-150/    what Trainer needs to go on, every save_every steps; the newest two
    outputs/best/              the trained weights of the best validation so far
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from persona_bot.errors import UserError
from train.data.branched import BranchedExample
from train.data.examples import Example, pack
from train.recipes.collate import collate
from train.recipes.contrastive_loss import AnyExample, RankedExample
from train.recipes.fused import fused_lora
from train.recipes.packed_trainer import (
    PackedTrainer,
    autocast,
    check_model,
    fingerprint,
    on,
    reads_branches,
    summed_loss,
    training_arguments,
)
from train.recipes.sft_settings import SftSettings
from train.recipes.trainer import Cost, fewer, price, train_within_memory
from train.run.best import KeepBest
from train.run.checkpoints import remove_checkpoints, repair
from train.run.log import LOG_FILE, Progress, StopOnSignal, StopSignals

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


def add_lora(model: PreTrainedModel, settings: SftSettings) -> PreTrainedModel:
    """The model with a fresh adapter on every linear layer but the output; the frozen base in bfloat16 where training is.

    What comes back is peft's wrapper, which answers as the model inside does.
    """
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
        if settings.bf16:
            model.to(torch.bfloat16)  # type: ignore[arg-type]  # a decorator of transformers hides self
        wrapped: Any = get_peft_model(model, config)
    except ValueError as error:  # Mamba's projections, or a model without a linear layer
        raise UserError(
            f"LoRA cannot train {model.config.model_type} models; add --lora-rank 0 to train every weight, or choose another base."
        ) from error
    # or each save asks the Hub what the base looks like
    wrapped.peft_config["default"].base_model_name_or_path = ""
    return wrapped


def train_sft(
    model: PreTrainedModel,
    train: Sequence[AnyExample],
    valid: Sequence[Example],
    out: Path,
    settings: SftSettings,
    resume: bool = False,
    base: str | None = None,
) -> tuple[PackedTrainer, SftSettings]:
    """Trains `model` (with its adapter, if any) in place; the best validation's weights are in it at the end.

    `base`: the fingerprint of the weights below, which a resumed run must share.
    Out of memory halves the rows of a forward pass, doubles the passes of a step and goes on from the last checkpoint.
    Ctrl-C and SIGTERM save and return, with the signal in `trainer.stopped_by`. Returns the trainer and the settings in force.
    Raises UserError when the loss or a weight is no number, when the disk is full, or when even one row does not fit in memory.
    """
    with training_arguments(settings, out, bool(valid)).main_process_first(local=False):
        repair(out)
        if not resume:
            forget(out)
    train = set_up_attention(
        model, train, settings, training_arguments(settings, out, False).device
    )
    with fused_lora(model), StopSignals() as signals:
        trainer, settings = train_within_memory(
            lambda settings: make_trainer(model, train, valid, out, settings, signals, base),
            settings,
            smaller,
            resume,
        )
    trainer.stopped_by = signals.number if signals.asked else None
    KeepBest.restore(model, out)
    trainer.accelerator.wait_for_everyone()
    # a process that ends inside its group is torn down by force, and may abort
    trainer.accelerator.end_training()
    return trainer, settings


def set_up_attention(
    model: PreTrainedModel,
    examples: Sequence[AnyExample],
    settings: SftSettings,
    device: torch.device,
) -> Sequence[AnyExample]:
    """The model on its device, with attention by conversation where that serves it.

    Returns the examples as this model can read them: conversations that share a beginning apart, where it reads no branches.
    Raises UserError where negatives would need some; check_model's errors.
    """
    longest = max(examples, key=lambda example: len(example.ids))
    model.to(device)  # type: ignore[arg-type]  # the same
    with autocast(device, settings.bf16 and device.type == "cuda"):
        check_model(model, conversation_of(longest))
        if all(isinstance(example, Example) for example in examples) or reads_branches(
            model, conversation_of(longest)
        ):
            return examples
    if isinstance(longest, RankedExample):
        raise UserError(
            f"{model.config.model_type} models cannot be trained with --negatives; leave it out, or choose another base model."
        )
    return [
        each
        for example in examples
        for each in (example.apart() if isinstance(example, BranchedExample) else [example])
    ]


def conversation_of(example: AnyExample) -> Example:
    """The longest conversation in it."""
    if isinstance(example, BranchedExample):
        return max(example.apart(), key=lambda apart: len(apart.ids))
    return example.example if isinstance(example, RankedExample) else example


def make_trainer(
    model: PreTrainedModel,
    train: Sequence[AnyExample],
    valid: Sequence[Example],
    out: Path,
    settings: SftSettings,
    signals: StopSignals,
    base: str | None = None,
) -> PackedTrainer:
    rows = pack(train, settings.row_length)
    arguments = training_arguments(settings, out, bool(valid))
    same: dict[str, Any] = {"base": base} if base else {}
    same |= {name: value for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    same |= {
        "rows_a_step": settings.batch_rows * settings.accumulate * arguments.world_size,
        "data": fingerprint(train),
    }
    return PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=pack(valid, settings.row_length) if valid else None,
        data_collator=partial(
            collate,
            negative_weight=settings.negative_weight,
            difference_weight=settings.first_difference,
        ),
        callbacks=[
            Progress(out, sum(e.supervised for e in train)),
            KeepBest(out, settings.patience),
            StopOnSignal(signals),
        ],
        identity=same,
        bf16=settings.bf16,
    )


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
    rows, passes = fewer(rows, settings.accumulate)
    return replace(settings, batch_rows=rows, accumulate=passes)


def estimate(
    model: PreTrainedModel,
    rows: Sequence[Sequence[AnyExample]],
    settings: SftSettings,
    device: torch.device,
) -> Cost | None:
    """What training will take, from its longest forward and backward pass; None where memory does not suffice for it."""
    longest = sorted(rows, key=lambda row: -sum(len(e.ids) for e in row))[: settings.batch_rows]
    batch = on(collate(longest, settings.negative_weight, settings.first_difference), device)

    def loss() -> torch.Tensor:
        with fused_lora(model), autocast(device, settings.bf16):
            total, count = summed_loss(model, batch)
        return total / count

    learnt = sum(e.supervised for row in longest for e in row)
    return price(
        model,
        loss,
        (batch["input_ids"].numel(), learnt),
        math.ceil(len(rows) / settings.batch_rows) * settings.epochs,
        device,
        torch.bfloat16 if settings.bf16 else torch.float32,
        prepare=lambda: set_up_attention(model, longest[0], settings, device),
    )


def count_steps(rows: int, settings: SftSettings, processes: int = 1) -> int:
    """Optimizer steps of a whole run, as Trainer counts them."""
    passes = math.ceil(rows / (settings.batch_rows * processes))
    return math.ceil(math.ceil(passes / settings.accumulate) * settings.epochs)
