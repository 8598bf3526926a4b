"""The settings of simpletransformers' ConvAIModel: each of them honoured, refused, or named as having no effect.

A setting that a newer version adds is in none of the three lists, and tests/train/test_convai_settings.py fails.
"""

import difflib
import math
import os
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from simpletransformers.config.model_args import ConvAIArgs

from persona_bot.errors import UserError
from train.recipes.convai_optimizer import SCHEDULERS
from train.run.command import holds_files

# lowest and highest value; None: no bound
WHOLE = {
    "num_train_epochs": (1, None),
    "train_batch_size": (1, None),
    "eval_batch_size": (1, None),
    "gradient_accumulation_steps": (1, 10_000),
    "personality_permutations": (1, 1_000),
    "max_history": (0, None),
    "num_candidates": (0, None),
    "save_steps": (-1, None),
    "warmup_steps": (0, None),
    "evaluate_during_training_steps": (-1, None),
    "early_stopping_patience": (0, None),
    "max_length": (1, 10_000),
    "min_length": (0, 10_000),
    "top_k": (0, None),
    "manual_seed": (0, 2**32 - 1),
}
NUMBERS = {
    "learning_rate": (0, None),
    "lm_coef": (0, None),
    "mc_coef": (0, None),
    "max_grad_norm": (0, None),
    "weight_decay": (0, None),
    "warmup_ratio": (0, 1),
    "adam_epsilon": (0, 1),
    "early_stopping_delta": (0, None),
    "temperature": (0, 100),
    "top_p": (0, 1),
    "cosine_schedule_num_cycles": (0, None),
    "polynomial_decay_schedule_lr_end": (0, None),
    "polynomial_decay_schedule_power": (0, None),
    "adafactor_beta1": (0, 1),
    "adafactor_clip_threshold": (0, None),
    "adafactor_decay_rate": (-10, 0),
}
PAIRS = {"adam_betas": (0, 1), "adafactor_eps": (0, 1)}
ONE_OF = {
    "optimizer": ["AdamW", "Adafactor"],
    "scheduler": list(SCHEDULERS),
    "early_stopping_metric": ["eval_loss", "language_model_loss", "f1_score"],
}
SWITCHES = [
    "adafactor_relative_step",
    "adafactor_scale_parameter",
    "adafactor_warmup_init",
    "do_sample",
    "early_stopping_metric_minimize",
    "evaluate_during_training",
    "evaluate_each_epoch",
    "fp16",
    "no_save",
    "overwrite_output_dir",
    "save_best_model",
    "save_model_every_epoch",
    "silent",
    "use_early_stopping",
]
OTHERS = ["n_gpu", "not_saved_args", "output_dir"]
HONOURED = {*WHOLE, *NUMBERS, *PAIRS, *ONE_OF, *SWITCHES, *OTHERS}
REFUSED = {
    "config",
    "custom_layer_parameters",
    "custom_parameter_groups",
    "dynamic_quantize",
    "loss_args",
    "loss_type",
    "quantized_model",
    "tensorboard_dir",
    "train_custom_parameters_only",
    "trust_remote_code",
    "wandb_project",
}
NOTHING_CACHED, ONE_PROCESS = "nothing is cached here", "data is made ready as it is needed"
ALL_OF_FOLDER = "the checkpoint's own is used"
NO_EFFECT = {  # each with what is done instead
    "best_model_dir": "the best model is best_model in the output folder",
    "cache_dir": NOTHING_CACHED,
    "dataset_cache_dir": NOTHING_CACHED,
    "no_cache": NOTHING_CACHED,
    "reprocess_input_data": NOTHING_CACHED,
    "use_cached_eval_features": NOTHING_CACHED,
    "use_hf_datasets": NOTHING_CACHED,
    "dataloader_num_workers": ONE_PROCESS,
    "multiprocessing_chunksize": ONE_PROCESS,
    "process_count": ONE_PROCESS,
    "thread_count": ONE_PROCESS,
    "use_multiprocessing": ONE_PROCESS,
    "use_multiprocessing_for_evaluation": ONE_PROCESS,
    "do_lower_case": ALL_OF_FOLDER,
    "model_class": ALL_OF_FOLDER,
    "model_name": ALL_OF_FOLDER,
    "model_type": ALL_OF_FOLDER,
    "tokenizer_name": ALL_OF_FOLDER,
    "tokenizer_type": ALL_OF_FOLDER,
    "early_stopping_consider_epochs": "every evaluation counts",
    "encoding": "files are read as UTF-8",
    "evaluate_during_training_silent": "evaluations are reported with the steps",
    "evaluate_during_training_verbose": "evaluations are reported with the steps",
    "local_rank": "one process trains",
    "logging_steps": "every step is reported",
    "max_seq_length": "a history is cut to what the model can read",
    "save_eval_checkpoints": "the best model is kept",
    "save_optimizer_and_scheduler": "they are saved until training has ended",
    "skip_special_tokens": "replies never hold special tokens",
    "wandb_kwargs": "nothing is sent to wandb",
}


def as_dict(args: dict | ConvAIArgs | None) -> dict:
    """Settings as a notebook gives them, checked. Raises UserError."""
    if isinstance(args, ConvAIArgs):
        args = asdict(args)
    if not isinstance(args or {}, dict):
        raise UserError(f"args must be a dict or a ConvAIArgs, not {type(args).__name__}.")
    return check_args(args or {})


def check_args(args: dict) -> dict:
    """The settings, whole numbers as such; raises UserError for the first that is unknown, impossible or not supported."""
    defaults = {field.name: getattr(ConvAIArgs(), field.name) for field in fields(ConvAIArgs)}
    for name, value in args.items():
        if name not in defaults:
            close = difflib.get_close_matches(name, list(defaults), 1)
            raise UserError(
                f"ConvAIModel has no setting {name!r}"
                + (f"; did you mean {close[0]!r}?" if close else "; leave it out.")
            )
        if name in REFUSED and value:
            raise UserError(f"The setting {name} is not supported here; leave it out.")
        if value == defaults[name] and type(value) is type(defaults[name]):
            continue
        wanted = _what_is_wanted(name, value)
        if wanted:
            raise UserError(f"The setting {name} must be {wanted}; it is {value!r}.")
    if args.get("optimizer") == "Adafactor" and args.get("adafactor_relative_step", True):
        raise UserError(
            "Adafactor gets its learning rate from the scheduler: set adafactor_relative_step and _warmup_init to False."
        )
    if (args.get("n_gpu") or 1) > 1:
        raise UserError(
            "The recipe convai trains on one GPU; leave n_gpu out, or use recipe sft with accelerate launch."
        )
    return {
        name: int(value) if name in {*WHOLE, "n_gpu"} and isinstance(value, float) else value
        for name, value in args.items()
    }


def tell_without_effect(args: dict) -> None:
    """One line on stderr for the settings that were given a value of their own and change nothing here."""
    defaults = ConvAIArgs()
    named = [
        f"{name} ({NO_EFFECT[name]})"
        for name, value in args.items()
        if name in NO_EFFECT and value != getattr(defaults, name)
    ]
    if named:
        print(f"Without effect here: {', '.join(named)}.", file=sys.stderr)


def _what_is_wanted(name: str, value: Any) -> str | None:
    """What a setting's value must be, where this one is not it."""
    if name in WHOLE and not _is_within(value, *WHOLE[name], whole=True):
        return f"a whole number {_bounds(*WHOLE[name])}"
    if name in NUMBERS and not _is_within(value, *NUMBERS[name]):
        return f"a number {_bounds(*NUMBERS[name])}"
    if name in PAIRS and not (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(_is_within(v, *PAIRS[name]) and v < 1 for v in value)
    ):
        return "two numbers of at least 0 and below 1"
    if name in ONE_OF and value not in ONE_OF[name]:
        return f"one of {', '.join(ONE_OF[name])}"
    if name in SWITCHES and not isinstance(value, bool):
        return "True or False"
    if name == "n_gpu" and not _is_within(value, 0, None, whole=True):
        return "a whole number of at least 0"
    if name == "output_dir" and not (isinstance(value, (str, Path)) and str(value)):
        return "the name of a folder"
    if name == "not_saved_args" and not (
        isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
    ):
        return "a list of names"
    return None


def _bounds(low: float, high: float | None) -> str:
    return f"of at least {low}" + (f" and at most {high:,}" if high is not None else "")


def _is_within(value: object, low: float, high: float | None, whole: bool = False) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value
        and (high is None or value <= high)
        and (not whole or value == int(value))
    )


def check_target(out: Path, may_hold_files: bool) -> None:
    """Raises UserError when the output folder holds something and that was not asked for."""
    if os.path.exists(out) and not os.path.isdir(out):
        raise UserError(f"{out} is a file; name a folder for the model.")
    if not may_hold_files and holds_files(out):
        raise UserError(
            f"{out} is not empty; set overwrite_output_dir to write over it, resume to go on, or name another folder."
        )
