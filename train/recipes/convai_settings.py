"""The settings of simpletransformers' ConvAIModel, checked: by name, by value, and for what cannot be honoured here.

honoured       num_train_epochs train_batch_size eval_batch_size gradient_accumulation_steps learning_rate and everything
               of optimizer, scheduler and warm-up; lm_coef mc_coef max_history num_candidates personality_permutations;
               save_model_every_epoch save_steps save_best_model no_save output_dir overwrite_output_dir; evaluate_* and
               early_stopping_*; manual_seed fp16 silent; the sampling settings
nothing to do  reprocess_input_data no_cache use_cached_eval_features cache_dir process_count and the like: no caches
refused        REFUSED below, unknown names, values that cannot be
"""

import difflib
import math
from dataclasses import fields
from pathlib import Path

from simpletransformers.config.model_args import ConvAIArgs

from persona_bot.errors import UserError
from train.recipes.convai_state import SCHEDULERS

REFUSED = [
    "custom_layer_parameters",
    "custom_parameter_groups",
    "train_custom_parameters_only",
    "dynamic_quantize",
]
REFUSED += ["quantized_model", "wandb_project", "tensorboard_dir"]
LOWEST = {  # whole numbers
    "num_train_epochs": 1,
    "train_batch_size": 1,
    "eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "personality_permutations": 1,
    "max_history": 0,
    "num_candidates": 0,
    "save_steps": -1,
    "warmup_steps": 0,
    "evaluate_during_training_steps": -1,
    "early_stopping_patience": 0,
}
NOT_NEGATIVE = [
    "learning_rate",
    "lm_coef",
    "mc_coef",
    "max_grad_norm",
    "weight_decay",
    "warmup_ratio",
]
ONE_OF = {"optimizer": ["AdamW", "Adafactor"], "scheduler": list(SCHEDULERS)}


def check_args(args: dict) -> dict:
    """The settings as they are; raises UserError for the first that is unknown, impossible or not supported."""
    known = [field.name for field in fields(ConvAIArgs)]
    for name, value in args.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise UserError(
                f"ConvAIModel has no setting {name!r}"
                + (f"; did you mean {close[0]!r}?" if close else "; leave it out.")
            )
        if name in REFUSED and value:
            raise UserError(f"The setting {name} is not supported here; leave it out.")
        if name in LOWEST and not (
            _is_number(value) and value == int(value) and value >= LOWEST[name]
        ):
            raise UserError(
                f"The setting {name} must be a whole number of at least {LOWEST[name]}; it is {value!r}."
            )
        if name in NOT_NEGATIVE and not (_is_number(value) and value >= 0):
            raise UserError(f"The setting {name} must be a number of at least 0; it is {value!r}.")
        if name in ONE_OF and value not in ONE_OF[name]:
            raise UserError(
                f"The setting {name} must be one of {', '.join(ONE_OF[name])}; it is {value!r}."
            )
    if args.get("optimizer") == "Adafactor" and args.get("adafactor_relative_step", True):
        raise UserError(
            "Adafactor gets its learning rate from the scheduler: set adafactor_relative_step and _warmup_init to False."
        )
    if (args.get("n_gpu") or 1) > 1:
        raise UserError(
            "The recipe convai trains on one GPU; leave n_gpu out, or use recipe sft with accelerate launch."
        )
    return args


def check_target(out: Path, may_hold_files: bool) -> None:
    """Raises UserError when the output folder holds something and that was not asked for."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the model.")
    if out.exists() and any(out.iterdir()) and not may_hold_files:
        raise UserError(
            f"{out} is not empty; set overwrite_output_dir to write over it, resume to go on, or name another folder."
        )


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
