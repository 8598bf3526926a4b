"""What a step of recipe "convai" needs besides the model: optimizer, learning rate, precision; and all of it on disk, to resume.

training_state.safetensors    the optimizer's tensors, `<parameter number>.<name>`, and the random generators
training_state.json           step, scores so far, the settings that a resumed run must share
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, load_model, save_file
from transformers import get_scheduler
from transformers.optimization import Adafactor

from persona_bot.errors import UserError

SCHEDULERS = {  # simpletransformers' names -> transformers' names
    "constant_schedule": "constant",
    "constant_schedule_with_warmup": "constant_with_warmup",
    "linear_schedule_with_warmup": "linear",
    "cosine_schedule_with_warmup": "cosine",
    "cosine_with_hard_restarts_schedule_with_warmup": "cosine_with_restarts",
    "polynomial_decay_schedule_with_warmup": "polynomial",
}
STATE = "training_state"


@dataclass
class Progress:
    """How far training is."""

    step: int = 0  # optimizer steps done
    micro: int = 0  # examples a forward pass; halved when memory runs out
    best: float | None = None  # value of the metric that early stopping watches
    without_gain: int = 0  # evaluations since then
    ended_early: bool = False
    finished: bool = False  # False when it was stopped from outside and waits to be resumed
    evaluations: list[dict] = field(default_factory=list)


def make_optimizer(model, args) -> torch.optim.Optimizer:
    """simpletransformers' optimizer: AdamW or Adafactor, no decay on parameters named bias or LayerNorm.weight."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        (others if "bias" in name or "LayerNorm.weight" in name else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": args.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if args.optimizer == "AdamW":
        return torch.optim.AdamW(
            groups, lr=args.learning_rate, eps=args.adam_epsilon, betas=tuple(args.adam_betas)
        )
    return Adafactor(
        groups,
        lr=args.learning_rate,
        eps=tuple(args.adafactor_eps),
        clip_threshold=args.adafactor_clip_threshold,
        decay_rate=args.adafactor_decay_rate,
        beta1=args.adafactor_beta1,
        weight_decay=args.weight_decay,
        scale_parameter=args.adafactor_scale_parameter,
        relative_step=args.adafactor_relative_step,
        warmup_init=args.adafactor_warmup_init,
    )


def make_scheduler(optimizer, args, steps: int):
    """simpletransformers' learning rate over `steps` optimizer steps."""
    name = SCHEDULERS[args.scheduler]
    own = {}
    if "cosine" in name:
        own = {"num_cycles": args.cosine_schedule_num_cycles}
    if name == "polynomial":
        own = {
            "lr_end": args.polynomial_decay_schedule_lr_end,
            "power": args.polynomial_decay_schedule_power,
        }
    warmup = args.warmup_steps or math.ceil(steps * args.warmup_ratio)
    return get_scheduler(name, optimizer, warmup, steps, scheduler_specific_kwargs=own)


def half_precision(device: torch.device) -> torch.dtype | None:
    """What `fp16` means on a device: bfloat16 where the GPU has it, else float16; on a CPU everything stays float32."""
    if device.type != "cuda":
        return None
    return (
        torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    )


def save_state(folder: Path, optimizer, scaler, progress: Progress, identity: dict) -> None:
    """Writes everything but the model, which lies beside it."""
    tensors, numbers = {"random.cpu": torch.get_rng_state()}, {}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for parameter, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            is_tensor = isinstance(value, torch.Tensor)
            (tensors if is_tensor else numbers)[f"{parameter}.{name}"] = (
                value.contiguous() if is_tensor else value
            )
    save_file(tensors, folder / f"{STATE}.safetensors")
    content = {
        "identity": identity,
        "progress": asdict(progress),
        "scaler": scaler.state_dict(),
        "optimizer": numbers,
    }
    (folder / f"{STATE}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_state(folder: Path, model, optimizer, scaler, identity: dict) -> Progress:
    """Brings model, optimizer, scaler and random generators to where `save_state` found them.

    Raises UserError when the run that saved them had other settings or data.
    """
    content = json.loads((folder / f"{STATE}.json").read_text(encoding="utf-8"))
    for name, value in content["identity"].items():
        if identity[name] != value:
            what = (
                "other training data"
                if name == "data"
                else f"{name} {value}, now it is {identity[name]}"
            )
            raise UserError(
                f"{folder} was trained with {what}; resume with the same, or start anew without --resume."
            )
    load_model(model, folder / "model.safetensors")
    tensors = load_file(folder / f"{STATE}.safetensors")
    torch.set_rng_state(tensors.pop("random.cpu"))
    if (cuda := tensors.pop("random.cuda", None)) is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    state: dict[int, dict] = {}
    for key, value in {**tensors, **content["optimizer"]}.items():
        parameter, name = key.split(".", 1)
        state.setdefault(int(parameter), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    scaler.load_state_dict(content["scaler"]) if scaler.is_enabled() else None
    return Progress(**content["progress"])
