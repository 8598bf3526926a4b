"""Everything about a run of recipe sft that can be chosen, each with its default, range and help at the field.

`train.finetune` makes a flag of each field, and training.json holds their values.
"""

from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec

import torch

from persona_bot.device import best_dtype, pick_device
from persona_bot.errors import UserError
from persona_bot.settings import number_type, setting

TRACKERS = {  # name: packages, one of which it needs
    "none": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}
RENAMED = {"rivals": "negatives", "rival_weight": "negative_weight"}  # in runs before December 2026


@dataclass(frozen=True)
class SftSettings:
    """What can be chosen; the defaults train SmolLM2-135M on Persona-Chat well. Raises UserError for a value out of range."""

    epochs: float = setting(
        3.0, 0.001, 1_000, help="How often each dialogue is read; few dialogues need more."
    )
    learning_rate: float | None = setting(
        None,
        1e-9,
        1.0,
        help="How far a step goes; too high forgets how to speak. Left out: 4e-4 for LoRA, 5e-5 with --lora-rank 0.",
    )
    row_length: int = setting(
        512,
        32,
        1_000_000,
        unit="tokens",
        help="Tokens a row: conversations are packed into rows, and one that is longer is cut in two.",
    )
    batch_rows: int = setting(
        1, 1, 10_000, unit="rows", help="Rows a forward pass: a GPU is full at 16 or more."
    )
    accumulate: int = setting(
        4,
        1,
        10_000,
        unit="passes",
        help="Forward passes a step; with few dialogues 1, or there are no steps.",
    )
    warmup: float = setting(
        0.05, 0, 0.99, help="Share of all steps in which the learning rate rises from nothing."
    )
    weight_decay: float = setting(0.01, 0, 10, help="How strongly weights are pulled towards 0.")
    lora_rank: int = setting(32, 0, 4_096, help="Size of the adapter; 0 trains every weight.")
    lora_alpha: int = setting(
        64, 1, 65_536, help="How strongly the adapter speaks, divided by its rank."
    )
    # dropout costs a CPU 40 % of its speed, and three epochs do not need it
    lora_dropout: float = setting(
        0.0, 0, 0.95, help="Share of the adapter's inputs left out at random."
    )
    both_sides: bool = setting(False, help="Learn what the partner says, too.")
    negatives: int = setting(
        0,
        0,
        100,
        unit="replies",
        help="Wrong replies that each right one is told apart from; 0 is off.",
    )
    negative_weight: float = setting(
        2.0, 0, 1_000, help="How much telling apart counts against saying."
    )
    first_difference: float = setting(
        0.0,
        0,
        1_000,
        help="How much it counts to choose the right token where the wrong replies of the file differ from the right one first; 0 is off.",
    )
    gradient_checkpointing: bool = setting(False, help="Less memory for a third more time.")
    bf16: bool = setting(True, help="Multiply in bfloat16, twice as fast where the processor can.")
    save_every: int = setting(
        50, 1, 10**9, unit="steps", help="Steps between checkpoints, and between validations."
    )
    patience: int = setting(
        3,
        1,
        10**9,
        unit="validations",
        help="Validations without a better loss before training stops.",
    )
    seed: int = setting(42, 0, 2**32 - 1, help="The same seed trains the same model.")
    report_to: str = field(
        default="none",
        metadata={
            "help": "Where the losses go besides log.jsonl: tensorboard, wandb or trackio (default: none)."
        },
    )

    def __post_init__(self) -> None:
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", 4e-4 if self.lora_rank else 5e-5)
        check_tracker(self.report_to)
        if self.negatives and self.first_difference:
            raise UserError("--negatives and --first-difference do not go together; choose one.")
        for number in NUMBERS:
            low, high = number.metadata["low"], number.metadata["high"]
            value = getattr(self, number.name)
            if not low <= value <= high:  # also what is no number at all
                flag = number.name.replace("_", "-")
                raise UserError(
                    f"--{flag} must be from {low:g} to {high:g}, not {value}; leave it out for the default."
                )


NUMBERS = [each for each in fields(SftSettings) if each.name != "report_to"]


def check_tracker(name: str) -> None:
    """Raises UserError for a tracker that is not known, or not installed."""
    if name not in TRACKERS:
        raise UserError(f"--report-to must be one of {', '.join(TRACKERS)}, not {name}.")
    if name != "none" and not any(map(find_spec, TRACKERS[name])):
        raise UserError(f"--report-to {name} needs that package; pip install {name}.")


def usable(settings: SftSettings) -> SftSettings:
    """The settings without bfloat16 where the hardware does not multiply it: a CPU with AVX2 alone took 85 times as long."""
    device = pick_device()
    if not settings.bf16 or device.type == "mps" or best_dtype(device) == torch.bfloat16:
        return settings
    kind = "GPU" if device.type == "cuda" else "CPU"
    print(f"This {kind} does not multiply bfloat16: training in float32.", flush=True)
    return replace(settings, bf16=False)


def field_types() -> dict[str, type]:
    """The type of each setting."""
    return {number.name: number_type(number) for number in NUMBERS} | {"report_to": str}
