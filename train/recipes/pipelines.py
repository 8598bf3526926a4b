"""The two recipes as `train.finetune` runs them: settings, the plan with its cost, training, and what is left in the folder."""

import argparse
import ast
import contextlib
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from persona_bot.errors import UserError
from train.data.dialogues import Dialogue

# where a night's run should begin from other settings than simpletransformers' own
CONVAI_DEFAULTS = {
    "num_train_epochs": 3,
    "evaluate_during_training": True,
    "evaluate_during_training_steps": -1,  # after each epoch
    "use_early_stopping": True,
    "save_model_every_epoch": False,
    "save_steps": 200,
    "manual_seed": 42,
}
FEW = 30  # steps
CHECKED = 200  # dialogues that a validation during training reads at most


def is_main_process() -> bool:
    """Whether this process prints, saves and publishes; under `accelerate launch` only one does."""
    return os.environ.get("RANK", "0") == "0"


def train_with_sft(
    options: argparse.Namespace, train: list[Dialogue], valid: list[Dialogue]
) -> dict:
    """Recipe sft from base to saved checkpoint; returns the facts for training.json."""
    from persona_bot.checkpoints.files import BASE_MODEL
    from train.data.examples import dialogue_examples, pack
    from train.recipes import sft, sft_settings
    from train.recipes.base_model import base_name, load_base, save_trained
    from train.recipes.packed_trainer import training_arguments
    from train.run.log import Interrupted

    settings = sft_settings.SftSettings(
        **{
            name: getattr(options, name)
            for name in sft_settings.field_types()
            if hasattr(options, name)
        }
    )
    settings = sft_settings.usable(settings)
    base = base_name(options.model or BASE_MODEL)
    done = steps_done(options) if options.resume else 0
    model, tokenizer, layout, settings = load_base(options.model or BASE_MODEL, settings)
    room = min(
        settings.row_length, getattr(model.config, "max_position_embeddings", settings.row_length)
    )
    examples = dialogue_examples(
        layout, train, room, settings.both_sides, random.Random(settings.seed)
    )
    checks = dialogue_examples(layout, valid[:CHECKED], room)
    if examples and settings.rivals:
        examples = with_rivals(layout, examples, train, settings)
    if not examples:
        raise UserError(
            f"Not one exchange fits into {room} tokens with its persona; raise --row-length, or shorten the personas."
        )
    rows = pack(examples, settings.row_length)
    tokens, learnt = sum(len(e.ids) for e in examples), sum(e.supervised for e in examples)
    steps = sft.count_steps(len(rows), settings)
    if is_main_process():
        device = training_arguments(settings, options.out, False).device
        counts = f"{len(examples):,} conversations in {len(rows):,} rows, {learnt:,} supervised of {tokens:,} tokens"
        print_plan(
            f"sft, base {base}, layout {layout.name}",
            asdict(settings),
            counts,
            rest_of(sft.estimate(model, rows, settings, device), done, steps),
        )
        warn_of_few(steps)
    trainer, settings = sft.train_sft(
        model, examples, checks, options.out, settings, options.resume
    )
    if trainer.stopped_by_signal:
        raise Interrupted(options.out, trainer.signal_number)
    if is_main_process():
        save_trained(model, tokenizer, layout, base, options.out)
    return {
        "base_model": base,
        "layout": layout.name,
        "settings": asdict(settings),
        "steps": trainer.state.global_step,
        "tokens": tokens,
    }


def steps_done(options: argparse.Namespace) -> int:
    """The step of the checkpoint that --resume goes on from. Raises UserError where training has ended."""
    from train.run.checkpoints import newest_good

    folder = newest_good(options.out)
    if folder is None and (options.out / "training.json").exists():
        raise UserError(
            f"{options.out} holds a finished training; go on from it with --model {options.out} and another --out, "
            "or train anew with --overwrite."
        )
    return int(folder.name.rpartition("-")[2]) if folder else 0


def rest_of(cost, done: int, steps: int):
    """The cost (sft.Cost or None) of the steps that are left."""
    return cost and cost._replace(seconds=cost.seconds * max(steps - done, 0) / steps)


def warn_of_few(steps: int) -> None:
    if steps < FEW:
        print(
            f"Only {steps} steps: a model learns little in so few; raise --epochs, or lower --accumulate.",
            file=sys.stderr,
        )


def with_rivals(layout, examples: list, dialogues: list[Dialogue], settings) -> list:
    """The examples, each reply with rivals: its file's wrong candidates, else replies of the others."""
    from persona_bot.prompt import unconditional_prompt
    from train.data.examples import wrong_replies
    from train.recipes.contrastive_loss import add_rivals

    if layout.needs_token_types:
        raise UserError(
            "--rivals needs a base with a chat template; recipe convai has a ranking head for the same end."
        )
    nothing = unconditional_prompt(layout, settings.row_length).ids
    wrong = wrong_replies(layout, dialogues, settings.rivals)
    return add_rivals(examples, nothing, settings.rivals, settings.seed, wrong)


def train_with_convai(
    options: argparse.Namespace, train: list[Dialogue], valid: list[Dialogue]
) -> dict:
    """Recipe convai from base to saved checkpoint, the best one by validation; its settings are simpletransformers' own."""
    from train.recipes.convai import ConvAIModel, model_type_of
    from train.recipes.convai_examples import ConvaiExamples
    from train.run.checkpoints import is_good, newest_good, write_files_atomically
    from train.run.log import Interrupted, StopSignals

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "Recipe convai trains in one process; start it with python, or use recipe sft under accelerate launch."
        )
    settings = {**CONVAI_DEFAULTS, **read_settings(options.set)}
    base = options.model or "gpt2"
    source = str((newest_good(options.out, "resume-*") if options.resume else None) or base)
    model = ConvAIModel(model_type_of(source), source, {**settings, "overwrite_output_dir": True})
    args = model.args
    room = model.model.config.max_position_embeddings
    examples = ConvaiExamples(
        model.layout, train, room, args.num_candidates, args.personality_permutations
    )
    counts = f"{len(examples):,} replies, {args.num_candidates or 'all'} candidates each"
    print_plan(
        f"convai, base {base}, layout convai", settings, counts, estimate_convai(model, examples)
    )
    best = options.out / "best_model"
    if not options.resume:
        shutil.rmtree(best, ignore_errors=True)
    with StopSignals() as signals, ConvaiProgress(options.out) as progress:
        checks = valid[:CHECKED] if args.evaluate_during_training else None
        done = model.fit(
            train, checks, options.out, progress.hooks(lambda: signals.asked), options.resume
        )
    # else it had ended before, and --resume found nothing to do
    if not done.finished and any(options.out.glob("resume-*")):
        raise Interrupted(options.out, signals.number)
    if is_good(best):
        write_files_atomically(options.out, lambda folder: copy_files(best, folder))
    return {"base_model": base, "layout": "convai", "settings": settings, "steps": done.step}


class ConvaiProgress:
    """A bar and log.jsonl for recipe convai: what progress.Progress is for transformers' Trainer."""

    def __init__(self, out: Path):
        from train.run.log import RunLog

        self.log, self.bar = RunLog(out), None
        self.shown: dict[str, str] = {}

    def __enter__(self):
        self.started = time.monotonic()
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.close()

    def hooks(self, should_stop):
        from train.recipes.convai_loop import Hooks

        return Hooks(self.on_step, self.on_evaluation, self.say, should_stop)

    def on_step(self, record: dict) -> None:
        from train.run.log import training_bar

        if self.bar is None:
            self.log.begin(record["step"] - 1)
            self.bar = training_bar(record["steps"], record["step"] - 1)
        self.bar.update(record["step"] - self.bar.n)
        self.show(loss=record["loss"])
        self.bar.set_postfix({**self.shown, "tok/s": f"{record['tokens_per_s']:.0f}"})
        self.log.add(
            {k: v for k, v in record.items() if k not in ("steps", "eta")}
            | {"seconds": time.monotonic() - self.started}
        )

    def on_evaluation(self, record: dict) -> None:
        self.show(eval_loss=record["language_model_loss"])
        self.log.add(
            {
                "eval_loss": record["language_model_loss"],
                **record,
                "seconds": time.monotonic() - self.started,
            }
        )

    def show(self, **numbers: float) -> None:
        self.shown |= {name: f"{value:.3f}" for name, value in numbers.items()}

    def say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr) if self.bar else print(text, file=sys.stderr)


def estimate_convai(model, examples) -> tuple[float, float] | None:
    """(seconds, GB) that training will take, from one average batch; the gradients are dropped. None where it does not fit."""
    import psutil
    import torch

    from persona_bot.device import is_out_of_memory
    from train.recipes.convai_examples import collate, losses
    from train.recipes.convai_loop import half_precision

    args = model.args
    count = min(args.train_batch_size, len(examples))
    batch = [examples.sequences(k * len(examples) // count, 0) for k in range(count)]
    model._move_model_to_device()
    device = next(model.model.parameters()).device
    dtype = half_precision(device) if args.fp16 else None
    model.model.train()
    try:
        for _ in range(2):  # the first warms up
            started = time.monotonic()
            with torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext():
                words, choices = losses(model.model, collate(batch, examples.layout.pad).to(device))
            (words + choices).backward()
            seconds = time.monotonic() - started
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        model.model.zero_grad(set_to_none=True)
    optimizer = 8 * sum(p.numel() for p in model.model.parameters())
    memory = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else psutil.Process().memory_info().rss
    )
    return seconds * len(examples) / count * args.num_train_epochs, (memory + optimizer) / 1e9


def read_settings(pairs: Sequence[str]) -> dict:
    """`["num_train_epochs=5", "fp16=False"]` -> {"num_train_epochs": 5, "fp16": False}; UserError for what cannot be set."""
    from simpletransformers.config.model_args import ConvAIArgs

    from train.recipes.convai_settings import check_args

    settings, defaults = {}, ConvAIArgs()
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair} has no value; write it like --set num_train_epochs=5.")
        settings[name] = _typed(name, text, getattr(defaults, name, None))
    return check_args(settings)


def _typed(name: str, text: str, default):
    """A setting's text as its default's type."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, bool) and not isinstance(value, bool):
        raise UserError(f"--set {name} must be True or False, not {text!r}.")
    if isinstance(default, (int, float)) and not isinstance(value, (int, float)):
        raise UserError(f"--set {name} must be a number, not {text!r}.")
    if isinstance(default, tuple):
        return tuple(value) if isinstance(value, (tuple, list)) else value
    return value


def print_plan(what: str, settings: dict, counts: str, cost: tuple | None) -> None:
    """What will be trained with which settings, and what it will cost: (seconds, GB, and MFU and tokens/s where known)."""
    price = (
        f"about {duration(cost[0])} and {cost[1]:.1f} GB"
        if cost
        else "more memory than there is: the batch will be halved"
    )
    if cost and len(cost) > 2:
        counts += f"; {cost[3]:.0f} tokens/s, {cost[2]:.0%} of the machine's matrix rate"
    print(
        f"{what}\n{', '.join(f'{name} {value}' for name, value in settings.items())}\n{counts}; {price}",
        flush=True,
    )


def duration(seconds: float) -> str:
    """`40 seconds`, `12 minutes`, `7.5 hours`."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5_400 else f"{seconds / 3_600:.1f} hours"


def copy_files(source: Path, target: Path) -> None:
    for file in source.iterdir():
        shutil.copy2(file, target / file.name)
