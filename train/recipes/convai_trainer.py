"""Recipe "convai" on transformers' Trainer: its loss, its order of examples, its times to validate and to save.

    outputs/checkpoint-120-epoch-1/   the model after each epoch (save_model_every_epoch), as simpletransformers names it
    outputs/best_model/               the best by validation (evaluate_during_training)
    outputs/resume-150/               model, optimizer and random state, every save_steps steps or ten minutes; the newest two
    outputs/model.safetensors ...     the last model, when training is over; the resume-* folders go then
    outputs/finished.json             its steps, and what a run must share to find itself finished there

The order of an epoch and the wrong candidates come from seed and epoch, so that a resumed run takes the same steps and ends
in the same bytes (on a CPU with the same number of threads).
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainingArguments

from train.recipes.convai_examples import Batch, ConvaiExamples, collate, losses
from train.recipes.convai_optimizer import half_precision, make_optimizer, make_scheduler
from train.recipes.convai_settings import ConvAIArgs
from train.recipes.convai_times import EpochOrder, Times, keep_best
from train.recipes.trainer import WholeTrainer
from train.run.checkpoints import write_folder_atomically

SAME_ON_RESUME = (
    "train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "manual_seed",
    "optimizer",
    "scheduler",
    "learning_rate",
    "weight_decay",
    "warmup_steps",
    "warmup_ratio",
    "max_grad_norm",
    "lm_coef",
    "mc_coef",
    "max_history",
    "num_candidates",
    "personality_permutations",
)


class ConvaiTrainer(WholeTrainer):
    """Trainer whose step is simpletransformers': the mean of its batches, each a mean over learnt ids and over examples."""

    prefix, rate, pieces = "resume", "learning_rate", "examples"
    train_dataset: ConvaiExamples

    def __init__(
        self,
        model: torch.nn.Module,
        examples: ConvaiExamples,
        settings: ConvAIArgs,
        arguments: TrainingArguments,
        identity: dict,
        save_model: Callable[[Path], None],
        scores: Callable[[], dict[str, float]] | None,
        callbacks: Sequence[TrainerCallback],
    ):
        """`save_model(folder)` writes a loadable checkpoint."""
        self.settings, self.save_to, self.scores = settings, save_model, scores
        self.best = keep_best(self, Path(str(arguments.output_dir)))
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=partial(collate_pass, pad=examples.layout.pad),
            callbacks=[Times(self), self.best, *callbacks],
            identity=identity,
        )
        self.loss_is_scaled_for_ga = True  # by scale_passes
        self.dtype = half_precision(arguments.device) if settings.fp16 else None
        if self.dtype == torch.float16:
            self.accelerator.scaler = torch.amp.GradScaler(arguments.device.type)
        self.parts = torch.zeros(2)  # both losses of this step

    @property
    def steps_an_epoch(self) -> int:
        args = self.settings
        batches = math.ceil(len(self.train_dataset) / args.train_batch_size)
        return math.ceil(batches / args.gradient_accumulation_steps)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return EpochOrder(self.train_dataset, self.settings.manual_seed)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, None]:
        """A step's passes, each with what divides its sums: passes of one batch share that batch's numbers."""
        passes, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        size = self.settings.train_batch_size // self.args.per_device_train_batch_size
        batches = [passes[k : k + size] for k in range(0, len(passes), size)]
        for batch in batches:
            learnt, examples = (
                sum(len(one[name]) for one in batch) for name in ("targets", "examples")
            )
            for one in batch:
                one["shares"] = torch.tensor(
                    [1 / (learnt * len(batches)), 1 / (examples * len(batches))]
                )
        self.parts = torch.zeros(2, device=device)
        return passes, None

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """lm_coef times the language model's loss plus mc_coef times that of the choice, this pass's share of the step."""
        shares = inputs.pop("shares")
        parts = torch.stack(losses(model, Batch(**inputs))) * shares
        if not torch.isfinite(parts).all():
            raise self.not_finite("The loss")
        self.parts += parts.detach()
        return self.settings.lm_coef * parts[0] + self.settings.mc_coef * parts[1]

    def autocast_smart_context_manager(
        self, cache_enabled: bool | None = True
    ) -> contextlib.AbstractContextManager:
        return autocast(self.args.device, self.dtype)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        self.optimizer = self.optimizer or make_optimizer(self.model, self.settings)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        self.lr_scheduler = make_scheduler(
            optimizer or self.optimizer, self.settings, num_training_steps
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(self.optimizer.optimizer)
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> float:
        norm = super()._get_grad_norm(model, grad_norm)
        # a scaler skips such a step by itself
        if self.accelerator.scaler is None and not math.isfinite(norm):
            raise self.not_finite("The gradient")
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Also both parts of a step's loss."""
        if "loss" in logs:
            logs |= dict(zip(("lm_loss", "mc_loss"), self.parts.tolist(), strict=True))
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """simpletransformers' scores of the validation dialogues."""
        assert self.scores  # Times has asked for it
        scores = self.scores()
        metrics = {"eval_loss": scores["language_model_loss"], **scores}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # nothing here asks for them

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        self.save_to(Path(output_dir) if output_dir else self.out)

    def save_whole(self, folder: Path) -> None:
        """The model alone, in a folder of its own."""
        self.check_weights()
        write_folder_atomically(folder, self.save_to)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        if not self.settings.no_save:
            super()._save_checkpoint(model, trial)


def identity_of(examples: ConvaiExamples, settings: ConvAIArgs, base: str | None = None) -> dict:
    """What a run must share to go on from a checkpoint of another, or to find itself finished."""
    same = {name: getattr(settings, name) for name in SAME_ON_RESUME}
    begun = {"base_model": base} if base else {}
    return {**begun, "data": examples.fingerprint(), **same}


def collate_pass(examples: Sequence, pad: int) -> dict[str, torch.Tensor]:
    return collate(examples, pad)._asdict()


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
