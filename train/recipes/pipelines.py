"""The two recipes as `train.finetune` runs them: settings, the plan with its cost, training, and what is left in the folder."""

import argparse
import ast
import os
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from persona_bot.errors import UserError
from train.data.dialogues import Dialogue

if TYPE_CHECKING:  # torch; a wrong flag is said at once
    from persona_bot.layouts import Layout
    from train.recipes.contrastive_loss import AnyExample
    from train.recipes.sft_settings import SftSettings
    from train.recipes.trainer import Cost

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
NUM_WRONG = 4  # candidates of a reply that --first-difference reads at most
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
    from train.recipes.base_model import base_fingerprint, base_name, load_base, save_trained
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
    name = options.model or BASE_MODEL
    base = base_name(name)
    done = steps_done(options) if options.resume else 0
    model, tokenizer, layout, settings = load_base(name, settings)
    max_length = min(
        settings.row_length, getattr(model.config, "max_position_embeddings", settings.row_length)
    )
    examples = examples_to_learn(layout, train, max_length, settings)
    checks = dialogue_examples(layout, valid[:CHECKED], max_length)
    if not examples:
        raise UserError(
            f"Not one exchange fits into {max_length} tokens with its persona; raise --row-length, or shorten the personas."
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
        model, examples, checks, options.out, settings, options.resume, base_fingerprint(name)
    )
    if trainer.stopped_by is not None:
        raise Interrupted(options.out, trainer.stopped_by)
    if is_main_process():
        save_trained(model, tokenizer, layout, base, options.out)
    return {
        "base_model": base,
        "layout": layout.name,
        "settings": asdict(settings),
        "steps": trainer.state.global_step,
        "tokens": tokens,
    }


def steps_done(options: argparse.Namespace, pattern: str = "checkpoint-*") -> int:
    """The step of the checkpoint that --resume goes on from. Raises UserError where training has ended."""
    from train.run.checkpoints import latest_valid

    folder = latest_valid(options.out, pattern)
    if folder is None and (options.out / "training.json").exists():
        raise UserError(
            f"{options.out} holds a finished training; go on from it with --model {options.out} and another --out, "
            "or train anew with --overwrite."
        )
    return int(folder.name.rpartition("-")[2]) if folder else 0


def rest_of(cost: "Cost | None", done: int, steps: int) -> "Cost | None":
    """The cost of the steps that are left."""
    return cost and cost._replace(seconds=cost.seconds * max(steps - done, 0) / steps)


def warn_of_few(steps: int) -> None:
    if steps < FEW:
        print(
            f"Only {steps} steps: a model learns little in so few; raise --epochs, or lower --accumulate.",
            file=sys.stderr,
        )


def examples_to_learn(
    layout: "Layout", dialogues: list[Dialogue], max_length: int, settings: "SftSettings"
) -> "Sequence[AnyExample]":
    """The dialogues' conversations; with --negatives each reply among wrong ones: its file's candidates, else replies of the others."""
    from persona_bot.prompt import unconditional_prompt
    from train.data.branched import branched_examples
    from train.data.examples import dialogue_examples, wrong_replies
    from train.recipes.contrastive_loss import add_negatives

    draw = random.Random(settings.seed)
    if not settings.negatives:
        num_wrong = NUM_WRONG if settings.first_difference else 0
        return branched_examples(
            layout, dialogues, max_length, settings.both_sides, draw, num_wrong
        )
    wrong = wrong_replies(layout, dialogues, settings.negatives)
    spoken = dialogue_examples(layout, dialogues, max_length, settings.both_sides, draw)
    if not spoken:
        return []
    unconditional = unconditional_prompt(layout, settings.row_length).ids
    return add_negatives(spoken, unconditional, settings.negatives, settings.seed, wrong)


def train_with_convai(
    options: argparse.Namespace, train: list[Dialogue], valid: list[Dialogue]
) -> dict:
    """Recipe convai from base to saved checkpoint, the best one by validation; its settings are simpletransformers' own."""
    from train.recipes.convai import ConvAIModel, model_type_of
    from train.recipes.convai_run import count_steps, estimate
    from train.recipes.sft_settings import check_tracker
    from train.run.checkpoints import is_valid, latest_valid, write_files_atomically
    from train.run.facts import base_facts
    from train.run.log import Interrupted, Progress, StopOnSignal, StopSignals

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "Recipe convai trains in one process; start it with python, or use recipe sft under accelerate launch."
        )
    report_to = getattr(options, "report_to", "none")
    check_tracker(report_to)
    settings = {**CONVAI_DEFAULTS, **read_settings(options.set)}
    base = options.model or "gpt2"
    begun = steps_done(options, "resume-*") if options.resume else 0
    source = latest_valid(options.out, "resume-*") if options.resume else None
    name = str(source or base)
    model = ConvAIModel(model_type_of(name), name, {**settings, "overwrite_output_dir": True})
    args, examples = model.args, model.examples(train)
    cost, steps = (
        estimate(model.model, examples, args, model.device),
        count_steps(len(examples), args),
    )
    counts = f"{len(examples):,} replies, {args.num_candidates or 'all'} candidates each"
    print_plan(f"convai, base {base}, layout convai", settings, counts, rest_of(cost, begun, steps))
    best = options.out / "best_model"
    if not options.resume:
        shutil.rmtree(best, ignore_errors=True)
        (options.out / "training.json").unlink(missing_ok=True)
    with StopSignals() as signals:
        done = model.fit(
            examples.dialogues,
            valid[:CHECKED] if args.evaluate_during_training else None,
            options.out,
            [Progress(options.out, examples.learnt), StopOnSignal(signals)],
            options.resume,
            report_to=report_to,
            base=base_facts(base)["base_model"],
        )
    if not done.finished:
        raise Interrupted(options.out, signals.number)
    if is_valid(best):
        write_files_atomically(options.out, partial(shutil.copytree, best, dirs_exist_ok=True))
    return {"base_model": base, "layout": "convai", "settings": settings, "steps": done.step}


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


def _typed(name: str, text: str, default: Any) -> Any:
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


def print_plan(what: str, settings: dict, counts: str, cost: "Cost | None") -> None:
    """What will be trained with which settings, and what it will cost (None: more memory than there is)."""
    price = "more memory than there is: the batch will be halved"
    if cost:
        rate = f"{cost.tokens_per_s:.0f} tokens/s, {cost.mfu:.0%} of the machine's matrix rate"
        price = f"about {duration(cost.seconds)} and {cost.gigabytes:.1f} GB; {rate}"
    print(
        f"{what}\n{', '.join(f'{name} {value}' for name, value in settings.items())}\n{counts}; {price}",
        flush=True,
    )


def duration(seconds: float) -> str:
    """`40 seconds`, `12 minutes`, `7.5 hours`."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5_400 else f"{seconds / 3_600:.1f} hours"
