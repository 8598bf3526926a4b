"""simpletransformers' optimizers, learning rates and `fp16` by their names, for recipe "convai"."""

import math
from typing import TYPE_CHECKING

import torch
from transformers import get_scheduler
from transformers.optimization import Adafactor

if TYPE_CHECKING:
    from simpletransformers.config.model_args import ConvAIArgs

SCHEDULERS = {  # simpletransformers' names -> transformers' names
    "constant_schedule": "constant",
    "constant_schedule_with_warmup": "constant_with_warmup",
    "linear_schedule_with_warmup": "linear",
    "cosine_schedule_with_warmup": "cosine",
    "cosine_with_hard_restarts_schedule_with_warmup": "cosine_with_restarts",
    "polynomial_decay_schedule_with_warmup": "polynomial",
}


def make_optimizer(model: torch.nn.Module, args: "ConvAIArgs") -> torch.optim.Optimizer:
    """simpletransformers' optimizer: AdamW or Adafactor, no decay on parameters named bias or LayerNorm.weight."""
    decayed: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
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


def make_scheduler(
    optimizer: torch.optim.Optimizer, args: "ConvAIArgs", steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
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
