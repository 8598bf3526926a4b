"""One run of recipe "convai" from its examples to the last model; what it will take, and how it is cut to fit in memory."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, TrainingArguments

from persona_bot.errors import UserError
from train.recipes.convai_examples import ConvaiExamples, collate, losses
from train.recipes.convai_optimizer import half_precision
from train.recipes.convai_settings import ConvAIArgs
from train.recipes.convai_trainer import ConvaiTrainer, autocast
from train.recipes.trainer import Cost, check_same, fewer, price, train_within_memory
from train.run.checkpoints import keep_newest, latest_valid, repair, write_files_atomically
from train.run.facts import read_facts, write_json

FINISHED = (
    "finished.json"  # beside the last model: its steps, and what a run must share with its own
)


class Trained(NamedTuple):
    """How far training came."""

    step: int  # optimizer steps done
    finished: bool  # False when it was stopped from outside and waits to be resumed
    evaluations: list[dict]  # step, epoch, language_model_loss, f1_score, and metrics by name


class Passes(NamedTuple):
    """How a step is cut into forward passes."""

    examples: int  # a pass; divides train_batch_size
    accumulated: int  # whole batches a step


def train_double_heads(
    model: torch.nn.Module,
    examples: ConvaiExamples,
    settings: ConvAIArgs,
    out: Path,
    identity: dict,
    save_model: Callable[[Path], None],
    scores: Callable[[], dict[str, float]] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
    report_to: str = "none",
) -> Trained:
    """Trains `model` in place to the end or to an early stop, or until a callback saves and stops.

    `identity`: what a run must share to be resumed; `save_model(folder)` writes a loadable checkpoint; `scores()` validates.
    Raises UserError when the loss or a weight is no number, when the disk is full, when not one example fits in memory, or
    when another training has ended in `out` and this one is to be resumed.
    """
    if steps := set_up(out, identity, resume):
        return Trained(steps, True, [])
    device = next(model.parameters()).device
    trainer, _ = train_within_memory(
        lambda passes: ConvaiTrainer(
            model,
            examples,
            settings,
            convai_arguments(settings, out, passes, device, report_to),
            identity,
            save_model,
            scores,
            callbacks,
        ),
        Passes(settings.train_batch_size, settings.gradient_accumulation_steps),
        shrink,
        resume,
    )
    state = trainer.state
    finished = state.global_step >= state.max_steps or trainer.best.is_over
    if finished and not settings.no_save:
        trainer.check_weights()
        save_last(out, save_model, {"steps": state.global_step, "identity": identity})
    model.eval()
    return Trained(state.global_step, finished, evaluations_of(state.log_history))


def set_up(out: Path, identity: dict, resume: bool) -> int:
    """Makes the folder ready for a run. The steps of the training that has ended in it and was to be resumed; else 0."""
    out.mkdir(parents=True, exist_ok=True)
    repair(out)
    if not resume:
        keep_newest(out, "resume-*", 0)  # an earlier run's
        (out / FINISHED).unlink(missing_ok=True)
    elif not latest_valid(out, "resume-*"):
        if steps := steps_of_finished(out, identity):
            keep_newest(out, "resume-*", 0)
            told = f"The training in {out} is finished; there is nothing to resume."
            print(told, file=sys.stderr)
            return steps
        told = f"{out} holds no checkpoint to resume from: training starts at the beginning."
        print(told, file=sys.stderr)
    return 0


def save_last(out: Path, save_model: Callable[[Path], None], kept: dict) -> None:
    """The last model, and beside it what is kept of its training; its resume-* folders go then."""

    def write(folder: Path) -> None:
        save_model(folder)
        write_json(folder / FINISHED, kept)

    write_files_atomically(out, write)
    keep_newest(out, "resume-*", 0)


def evaluations_of(history: Sequence[dict]) -> list[dict]:
    """The validations among what Trainer logged, by the names of their scores."""
    return [
        {
            name: round(value, 4) if name == "epoch" else value
            for name, value in line.items()
            if name != "eval_loss"
        }
        for line in history
        if "eval_loss" in line
    ]


def steps_of_finished(out: Path, identity: dict) -> int:
    """The steps of the training that has ended in a folder, 0 where none has.

    Raises UserError where it was another training than that of `identity`, or does not say which.
    """
    kept = read_facts(out / FINISHED)
    if not kept and (out / "model.safetensors").exists() and not [*out.glob("resume-*")]:
        raise UserError(
            f"{out} holds a model that does not say what it was trained with; name another folder, or start anew without --resume."
        )
    check_same(out, kept.get("identity", {}), identity)
    return kept.get("steps", 0)


def count_steps(examples: int, settings: ConvAIArgs) -> int:
    """Optimizer steps of a whole run."""
    batches = math.ceil(examples / settings.train_batch_size)
    return math.ceil(batches / settings.gradient_accumulation_steps) * settings.num_train_epochs


def convai_arguments(
    settings: ConvAIArgs, out: Path, passes: Passes, device: torch.device, report_to: str = "none"
) -> TrainingArguments:
    """Times (convai_times.py) says when to validate and to save."""
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=settings.num_train_epochs,
        # simpletransformers lets Adafactor clip by itself
        max_grad_norm=settings.max_grad_norm if settings.optimizer == "AdamW" else 0.0,
        per_device_train_batch_size=passes.examples,
        gradient_accumulation_steps=passes.accumulated,
        use_cpu=device.type == "cpu",
        seed=settings.manual_seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        disable_tqdm=True,  # run/log.py draws the bar
        report_to=report_to,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    if device.type == "cuda":
        # Trainer would take GPU 0, and cut the batch into pieces for all others
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
        arguments._n_gpu, arguments.__dict__["_setup_devices"] = 1, device
        arguments.distributed_state.device = device
    return arguments


def shrink(passes: Passes, processes: int = 1) -> Passes:
    if passes.examples == 1:
        raise UserError(
            "Memory ran out with a single example in a forward pass; take a smaller model, or shorter dialogues."
        )
    return Passes(*fewer(*passes))


def estimate(
    model: Any, examples: ConvaiExamples, settings: ConvAIArgs, device: torch.device
) -> Cost | None:
    """What training will take, from one average batch; None where memory does not suffice for it. `model`: with double heads."""
    count = min(settings.train_batch_size, len(examples))
    numbers = [k * len(examples) // count for k in range(count)]
    batch = collate([examples.sequences(k, 0) for k in numbers], examples.layout.pad).to(device)
    dtype = half_precision(device) if settings.fp16 else None

    def loss() -> torch.Tensor:
        with autocast(device, dtype):
            word_loss, choice_loss = losses(model, batch)
            return word_loss + choice_loss

    return price(
        model,
        loss,
        (batch.ids.numel(), len(batch.targets)),
        len(examples) / count * settings.num_train_epochs,
        device,
        dtype or torch.float32,
        prepare=lambda: model.to(device).train(),
    )
