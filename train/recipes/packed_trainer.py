"""transformers' Trainer for packed rows: the loss where something is supervised, validation by token.

input_ids      one conversation | another | a third ..    several rows of a batch joined to one, (1, T)
position_ids   0 1 2 3 ..       | 0 1 ..  | 0 1 2 ..      restart, so that each conversation attends to itself only (packed_attention.py)
"""

import hashlib
import inspect
import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, TrainingArguments

from persona_bot.errors import UserError
from train.data.branched import BranchedExample
from train.data.examples import IGNORED, Example
from train.recipes import contrastive_loss
from train.recipes.collate import collate
from train.recipes.contrastive_loss import AnyExample
from train.recipes.fused import CrossEntropy
from train.recipes.packed_attention import NAME, packed_logits
from train.recipes.sft_settings import SftSettings
from train.recipes.trainer import WholeTrainer


class PackedTrainer(WholeTrainer):
    """Trainer for packed rows."""

    eval_dataset: list[list[Example]]
    stopped_by: int | None = None  # the signal, where one ended training

    def __init__(self, *args: Any, bf16: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.bf16 = bf16
        # the loss below is divided by the supervised tokens of the whole step
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict]:
        """Summed cross-entropy at the supervised positions, over their number in all forward passes of the step."""
        total, count = summed_loss(model, inputs)
        if not torch.isfinite(total):
            raise self.not_finite("The loss")
        loss = total / (count if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        return (loss, {}) if return_outputs else loss

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        """Up over the warm-up, beginning above 0, then down half a cosine; Trainer's own first step would change nothing."""
        warmup = self.args.get_warmup_steps(num_training_steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            done = (step - warmup) / max(num_training_steps - warmup, 1)
            return max(0.5 * (1 + math.cos(math.pi * done)), 0.0)

        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> torch.autocast:
        """Around the whole loss instead of accelerate's around the model, which would copy all logits to float32."""
        return autocast(self.args.device, self.bf16)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Nats per supervised token over all validation rows; each process takes its share of them."""
        size = self.args.per_device_eval_batch_size
        rows = self.eval_dataset[self.args.process_index :: self.args.world_size]
        sums = torch.zeros(2, device=self.args.device)  # nats, tokens
        self.model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for k in range(0, len(rows), size):
                total, count = summed_loss(
                    self.model, self._prepare_inputs(collate(rows[k : k + size]))
                )
                sums += torch.tensor([total, count], device=sums.device)
        self.model.train()
        nats, tokens = self.accelerator.reduce(sums).tolist()
        metrics = {"eval_loss": nats / tokens}
        if not torch.isfinite(torch.tensor(nats)):
            raise self.not_finite("The loss of the validation")
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def summed_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """(cross-entropy in nats, summed over the supervised positions of a batch; their number). Wrong replies add their task's."""
    if "choices" in batch:
        nats, telling_apart, count = contrastive_loss.losses(model, batch)
        return nats + batch["negative_weight"] * telling_apart, count
    targets = batch["labels"][0]  # (T,)
    keep = (targets != IGNORED).nonzero()[:, 0]
    logits = packed_logits(model, batch, keep)
    nats = CrossEntropy.apply(logits, targets[keep])
    if "differences" in batch:
        places = torch.searchsorted(keep, batch["differences"])
        nats = nats + batch["difference_weight"] * choosing(logits[places], batch["alternatives"])
    return nats, len(keep)


def choosing(logits: torch.Tensor, alternatives: torch.Tensor) -> torch.Tensor:
    """Logits (R, vocabulary), ids (R, W), the right one first, IGNORED beyond the last -> nats of choosing it among them, summed."""
    scores = logits.float().gather(1, alternatives.clamp(min=0))
    scores = scores.masked_fill(alternatives == IGNORED, -torch.inf)
    return -scores.log_softmax(-1)[:, 0].sum()


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def check_model(model: PreTrainedModel, example: Example) -> None:
    """Sets up attention by conversation where the model computes the same with it.

    Raises UserError for an architecture that computes every logit, or whose conversations in a row would see each other.
    """
    base = getattr(model, "get_base_model", lambda: model)()
    kind, before = model.config.model_type, model.config._attn_implementation
    if "logits_to_keep" not in inspect.signature(base.forward).parameters:
        raise UserError(
            f"{kind} models cannot be trained by this recipe; choose another base model."
        )
    parts = [
        Example(
            example.ids[half],
            example.token_types and example.token_types[half],
            example.targets[half],
        )
        for half in (slice(-16, None), slice(16))
    ]
    was_training = model.training
    model.eval()
    expected = _last_logits(model, parts[1:], 16)
    if before != NAME and base._can_set_attn_implementation():
        base.set_attn_implementation(NAME)
        try:
            is_same = not _is_far(_last_logits(model, parts, 16), expected, base.dtype)
        except (NotImplementedError, RuntimeError):  # RuntimeError: no kernel for this GPU
            is_same = False
        if not is_same:
            base.set_attn_implementation(before)
    found = _last_logits(model, parts, 16)
    model.train(was_training)
    if _is_far(found, expected, base.dtype):
        raise UserError(
            f"{kind} models mix the conversations of a packed row; choose another base model."
        )


def reads_branches(model: PreTrainedModel, example: Example) -> bool:
    """Whether the model, set up by check_model, computes the same for a conversation's second half as a branch behind its first.

    Windows and local attention do not where the mask of a row is all that they are given.
    """
    half = len(example.ids) // 2
    first, rest = (
        Example(example.ids[part], None, example.targets[part])
        for part in (slice(half), slice(half, None))
    )
    was_training = model.training
    model.eval()
    expected, found = (
        _last_logits(model, [whole], len(rest.ids))
        for whole in (example, BranchedExample(first, [rest, rest]))
    )
    model.train(was_training)
    base = getattr(model, "get_base_model", lambda: model)()
    return not _is_far(found, expected, base.dtype)


def _last_logits(
    model: PreTrainedModel, examples: Sequence[AnyExample], count: int
) -> torch.Tensor:
    """The last logits of a row: (count, vocabulary), or fewer where it is shorter."""
    batch = on(collate([examples]), model.device)
    keep = torch.arange(batch["input_ids"].shape[1], device=model.device)[-count:]
    with torch.no_grad():
        return packed_logits(model, batch, keep).float()


def _is_far(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    return bool((found - expected).norm() > tolerance * expected.norm())


def on(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def fingerprint(examples: Sequence[AnyExample]) -> str:
    """The same for the same examples in the same order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(array("q", [*example.ids, *example.targets]).tobytes())
    return digest.hexdigest()


def training_arguments(settings: SftSettings, out: Path, validates: bool) -> TrainingArguments:
    """Several GPUs are used through `accelerate launch` only."""
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        learning_rate=cast(float, settings.learning_rate),  # None was replaced when it was made
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        per_device_train_batch_size=settings.batch_rows,
        per_device_eval_batch_size=settings.batch_rows,
        gradient_accumulation_steps=settings.accumulate,
        activation_checkpointing=settings.gradient_checkpointing,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=settings.save_every,
        save_strategy="steps",
        save_steps=settings.save_every,
        disable_tqdm=True,  # run/log.py draws the bar
        report_to=settings.report_to,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    if arguments.n_gpu > 1:
        # one process of its own accord would cut the joined rows into pieces for all GPUs
        arguments._n_gpu = 1
    return arguments
