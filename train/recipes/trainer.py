"""The training loop of both recipes: transformers' Trainer with whole checkpoints, smaller passes where memory runs out, a price.

A recipe adds its loss, its collator and what it validates by: packed_trainer.py (sft), convai_trainer.py.
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer

from persona_bot.device import is_out_of_memory
from persona_bot.errors import UserError
from train.recipes.sft_settings import RENAMED
from train.run.checkpoints import keep_newest, latest_valid, write_folder_atomically
from train.run.log import Progress
from train.run.speed import matmul_rate, step_flops

Settings = TypeVar("Settings")
Recipe = TypeVar("Recipe", bound="WholeTrainer")
IDENTITY = "settings.json"  # in a checkpoint: what a resumed run must share
FINGERPRINTS = {
    "data": "other training data",
    "base": "another base model",
}  # said without the value
BASES = (
    "base",
    "base_model",
)  # compared where this run names one: who has the model in hand does not


class WholeTrainer(Trainer):
    """Trainer whose checkpoints are whole or not there, and hold no number that is none."""

    prefix = "checkpoint"  # of their folders' names
    rate = "--learning-rate"  # what the user calls it
    pieces = "rows"  # what a forward pass is made of
    # transformers declares them as it finds them before training; from then on they are there
    model: torch.nn.Module
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, *args: Any, identity: dict, **kwargs: Any):
        """`identity`: what a run must share to go on from a checkpoint of this one."""
        super().__init__(*args, **kwargs)
        self.identity = identity
        self.remove_callback(PrinterCallback)  # run/log.py draws the bar

    @property
    def out(self) -> Path:
        return Path(str(self.args.output_dir))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().train(*args, **kwargs)
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, Progress):
                    callback.close()

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Trainer's own files, written under another name, hashed and renamed; every process adds its random state."""
        self.check_weights()
        out, step = self.out, self.state.global_step
        inner, name = f"checkpoint-{step}", f"{self.prefix}-{step}"

        def write(folder: Path) -> None:
            self.accelerator.wait_for_everyone()  # the folder is there
            self.args.output_dir = str(folder)  # Trainer writes folder/checkpoint-N ..
            super(WholeTrainer, self)._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                for file in (folder / inner).iterdir():  # .. whose files belong one floor up
                    file.rename(folder / file.name)
                (folder / inner).rmdir()
                (folder / IDENTITY).write_text(
                    json.dumps(self.identity, indent=2) + "\n", encoding="utf-8"
                )

        try:
            if self.args.should_save:
                write_folder_atomically(out / name, write)
                keep_newest(out, f"{self.prefix}-*", 2)
            else:
                write(out / f".{name}.new")  # where the main process is writing
            self.accelerator.wait_for_everyone()
        finally:
            self.args.output_dir = str(out)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # a run that had nothing left to do when it was stopped takes no step more
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def check_weights(self) -> None:
        if not all(p.isfinite().all() for p in self.model.parameters() if p.requires_grad):
            raise self.not_finite("A weight")

    def not_finite(self, what: str) -> UserError:
        kept = (
            "the last good checkpoint is kept"
            if any(self.out.glob(f"{self.prefix}-*"))
            else "nothing was saved yet"
        )
        return UserError(
            f"{what} is no longer a finite number at step {self.state.global_step + 1}, so training stopped; {kept}; "
            f"train anew with a lower {self.rate}."
        )


def train_within_memory(
    make: Callable[[Settings], Recipe],
    settings: Settings,
    shrink: Callable[[Settings, int], Settings],
    resume: bool,
) -> tuple[Recipe, Settings]:
    """Trains with the trainer that `make(settings)` gives, in place; the trainer and the settings in force.

    Out of memory takes `shrink(settings, processes)`, which raises UserError where nothing is left to shrink, and goes on
    from the last checkpoint of this run, if there is one, or from the weights it began with. Raises find_checkpoint's errors.
    """
    start = None
    while True:
        trainer = make(settings)
        model, args = trainer.model, trainer.args
        if start is None:
            start = {
                name: p.detach().cpu().clone()
                for name, p in model.named_parameters()
                if p.requires_grad
            }
        else:
            print(
                f"Memory ran out: now {args.per_device_train_batch_size} {trainer.pieces} a pass and "
                f"{args.gradient_accumulation_steps} passes a step.",
                file=sys.stderr,
            )
        try:
            trainer.train(resume_from_checkpoint=find_checkpoint(trainer) if resume else None)
            return trainer, settings
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        settings = shrink(settings, args.world_size)
        del trainer
        free_memory(model)
        model.load_state_dict(start, strict=False)
        resume = True  # from what this run saved, if it did


def find_checkpoint(trainer: WholeTrainer) -> str | None:
    """The newest whole checkpoint; raises UserError when its run had other settings or data, and would not be continued."""
    folder = latest_valid(trainer.out, f"{trainer.prefix}-*")
    if folder is None:
        return None
    file = folder / IDENTITY
    saved = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    check_same(folder, saved, trainer.identity)
    return str(folder)


def check_same(folder: Path, saved: dict, identity: dict) -> None:
    """Raises UserError where what was saved of a run's identity is not in this one."""
    for name, value in saved.items():
        name = RENAMED.get(name, name)
        now = identity.get(name)
        if now != value and not (name in BASES and name not in identity):
            what = FINGERPRINTS.get(name, f"{name} {value}, now it is {now}")
            raise UserError(
                f"{folder} was trained with {what}; resume with the same, or start anew without --resume."
            )


def fewer(rows: int, passes: int) -> tuple[int, int]:
    """The same step in less memory: half the rows a pass (a third of 3, ..), twice the passes. `rows` is above 1."""
    factor = next(k for k in range(2, rows + 1) if rows % k == 0)
    return rows // factor, passes * factor


def free_memory(model: torch.nn.Module) -> None:
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


def price(
    model: PreTrainedModel,
    loss: Callable[[], torch.Tensor],
    size: tuple[int, int],
    passes: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    prepare: Callable[[], object] = lambda: None,
) -> Cost | None:
    """What so many passes like `loss()` will take: it is run and timed forward and backward, its gradients dropped.

    `size`: the ids of the pass, and how many of them are learnt; `dtype`: that of the matrix products; `prepare()` is called
    once, before. None where memory does not suffice for either: training will shrink the batch.
    """
    try:
        prepare()
        for _ in range(2):  # the first warms up
            started = time.monotonic()
            loss().backward()
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
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else psutil.Process().memory_info().rss
    )
    flops = step_flops(model, *size)
    return Cost(
        seconds * passes,
        (memory + optimizer) / 1e9,
        flops / seconds / matmul_rate(dtype, device),
        size[0] / seconds,
    )
