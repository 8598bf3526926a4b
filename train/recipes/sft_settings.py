"""Everything about a run of recipe sft that can be chosen, with its ranges.

`train.finetune` makes a flag of each field.
"""

import sys
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec

import torch

from persona_bot.errors import UserError

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
        check_tracker(self.report_to)
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:  # also what is no number at all
                flag = name.replace("_", "-")
                raise UserError(
                    f"--{flag} must be from {low:g} to {high:g}, not {getattr(self, name)}; leave it out for the default."
                )


def check_tracker(name: str) -> None:
    """Raises UserError for a tracker that is not known, or not installed."""
    if name not in TRACKERS:
        raise UserError(f"--report-to must be one of {', '.join(TRACKERS)}, not {name}.")
    if name != "none" and not any(map(find_spec, TRACKERS[name])):
        raise UserError(f"--report-to {name} needs that package; pip install {name}.")


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


def field_types() -> dict[str, type]:
    """The type of each setting, for the command line."""
    return {
        field.name: float if field.default is None else type(field.default)
        for field in fields(SftSettings)
    }
