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
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

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
from train.run.checkpoints import mend, newest_good, remove_checkpoints
from train.run.log import LOG_FILE, KeepBest, Progress, StopOnSignal, StopSignals

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
TRACKERS = {  # name: packages, one of which it needs
    "none": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}
LIMITS = {  # field: (lowest, highest), both allowed
    "epochs": (0.001, 1_000),
    "learning_rate": (1e-9, 1.0),
    "row_length": (32, 1_000_000),
    "batch_rows": (1, 10_000),
    "accumulate": (1, 10_000),
    "warmup": (0.0, 0.99),
    "weight_decay": (0.0, 10.0),
    "lora_rank": (0, 4_096),
    "lora_alpha": (1, 65_536),
    "lora_dropout": (0.0, 0.95),
    "save_every": (1, 10**9),
    "patience": (1, 10**9),
    "rivals": (0, 100),
    "rival_weight": (0.0, 1_000.0),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True)
class SftSettings:
    """What can be chosen; the defaults train SmolLM2-135M on Persona-Chat well. Raises UserError for a value out of range."""

    epochs: float = 3.0
    learning_rate: float | None = None  # None: 4e-4 for LoRA, 5e-5 for training every weight
    row_length: int = 512  # ids a row
    batch_rows: int = 1  # rows a forward pass; a GPU is full at 16 or more
    accumulate: int = 4  # forward passes a step: about 2,000 ids a step
    warmup: float = 0.05  # share of all steps
    weight_decay: float = 0.01
    lora_rank: int = 32  # 0: train every weight
    lora_alpha: int = 64
    # dropout costs a CPU 40 % of its speed, and three epochs do not need it
    lora_dropout: float = 0.0
    both_sides: bool = False  # learn the partner's turns too
    # replies of other dialogues that each gold reply is told apart from (ranking.py)
    rivals: int = 0
    rival_weight: float = 2.0  # nats of that task against nats of saying the reply
    gradient_checkpointing: bool = False  # less memory, a third more time
    bf16: bool = True
    save_every: int = 50  # steps between checkpoints, and between validations
    patience: int = 3  # validations without a better loss before training stops
    seed: int = 42
    report_to: str = "none"  # tensorboard, wandb or trackio, besides log.jsonl

    def __post_init__(self):
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", 4e-4 if self.lora_rank else 5e-5)
        if self.report_to not in TRACKERS:
            raise UserError(
                f"--report-to must be one of {', '.join(TRACKERS)}, not {self.report_to}."
            )
        if self.report_to != "none" and not any(map(find_spec, TRACKERS[self.report_to])):
            raise UserError(
                f"--report-to {self.report_to} needs that package; pip install {self.report_to}."
            )
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:  # also what is no number at all
                flag = name.replace("_", "-")
                raise UserError(
                    f"--{flag} must be from {low:g} to {high:g}, not {getattr(self, name)}; leave it out for the default."
                )


def usable(settings: SftSettings) -> SftSettings:
    """The settings without bfloat16 where the GPU does not multiply it."""
    if (
        settings.bf16
        and torch.cuda.is_available()
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        print(
            "This GPU has no bfloat16: training in float32, which takes more memory and time.",
            file=sys.stderr,
        )
        return replace(settings, bf16=False)
    return settings


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


def estimate(
    model, rows: Sequence[Sequence[Example]], settings: SftSettings, device: torch.device
) -> tuple[float, float] | None:
    """(seconds, GB) that training will take: the longest forward and backward pass is run and timed, its gradients dropped.

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
    return seconds * math.ceil(len(rows) / settings.batch_rows) * settings.epochs, (
        memory + optimizer
    ) / 1e9


def count_steps(rows: int, settings: SftSettings, processes: int = 1) -> int:
    """Optimizer steps of a whole run, as Trainer counts them."""
    passes = math.ceil(rows / (settings.batch_rows * processes))
    return math.ceil(math.ceil(passes / settings.accumulate) * settings.epochs)


def field_types() -> dict[str, type]:
    """The type of each setting, for the command line."""
    return {
        field.name: float if field.default is None else type(field.default)
        for field in fields(SftSettings)
    }
