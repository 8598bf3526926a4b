"""When a run of recipe "convai" validates, saves and stops, and in which order it reads: as simpletransformers' settings say."""

import operator
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train.recipes.convai_examples import ConvaiExamples, epoch_order
from train.run.best import KeepBest

if TYPE_CHECKING:
    from train.recipes.convai_trainer import ConvaiTrainer

SAVE_SECONDS = 600.0  # what a kill may cost at most, where steps are slow
BEST_MODEL = "best_model"


class EpochOrder(Sampler):
    """The examples in the order of their epoch."""

    def __init__(self, examples: ConvaiExamples, seed: int):
        self.examples, self.seed = examples, seed

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(len(self), self.seed, self.examples.epoch))


class Times(TrainerCallback):
    """When an epoch begins, and when it is time to validate and to save."""

    def __init__(self, trainer: "ConvaiTrainer"):
        self.trainer, self.saved = trainer, time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # it finds a full disk before the work does, and from now on there always is one
        if state.global_step == 0:
            self.trainer._save_checkpoint(self.trainer.model, None)
            return
        print(
            f"Resuming from {self.trainer.prefix}-{state.global_step}: step {state.global_step} of {state.max_steps}.",
            file=sys.stderr,
        )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.train_dataset.epoch = state.global_step // self.trainer.steps_an_epoch

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        settings, step = self.trainer.settings, state.global_step
        epoch, rest = divmod(step, self.trainer.steps_an_epoch)
        every = settings.evaluate_during_training_steps
        control.should_evaluate = self.trainer.scores is not None and (
            (every > 0 and step % every == 0) or (rest == 0 and settings.evaluate_each_epoch)
        )
        if rest == 0 and settings.save_model_every_epoch and not settings.no_save:
            self.trainer.save_whole(self.trainer.out / f"checkpoint-{step}-epoch-{epoch}")
        if (settings.save_steps > 0 and step % settings.save_steps == 0) or (
            time.monotonic() - self.saved > SAVE_SECONDS
        ):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.saved = time.monotonic()


def keep_best(trainer: "ConvaiTrainer", out: Path) -> KeepBest:
    """best_model, and the early stop where it is asked for: simpletransformers bears `early_stopping_patience` bad ones."""
    settings = trainer.settings
    sign = operator.neg if settings.early_stopping_metric_minimize else operator.pos
    saves = settings.save_best_model and not settings.no_save
    return KeepBest(
        out,
        settings.early_stopping_patience + 1 if settings.use_early_stopping else None,
        settings.early_stopping_metric,
        lambda value, best: sign(value - best) > settings.early_stopping_delta,
        (lambda model, out: trainer.save_whole(out / BEST_MODEL)) if saves else None,
    )
