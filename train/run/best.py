"""The best model by validation: kept while training goes on, and the end of training when nothing gets better."""

import operator
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from train.run.checkpoints import is_valid, write_folder_atomically

BEST = "best"


def keep_trained(model: torch.nn.Module, out: Path) -> None:
    """Writes the trained weights to `best/`."""
    weights = {
        n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad
    }
    write_folder_atomically(
        out / BEST, lambda folder: save_file(weights, folder / "weights.safetensors")
    )


class KeepBest(TrainerCallback, ExportableState):
    """Keeps the model of the best validation, and stops after `patience` validations without a better one."""

    def __init__(
        self,
        out: Path,
        patience: int | None,
        metric: str = "eval_loss",
        is_better: Callable[[float, float], bool] = operator.lt,
        keep: Callable[[torch.nn.Module, Path], None] | None = keep_trained,
    ):
        """`patience`: None never stops; `is_better(value, best)`; `keep(model, out)` saves the model (None: it is not saved)."""
        self.out, self.patience, self.metric = out, patience, metric
        self.is_better, self.keep = is_better, keep
        self.best: float | None = None
        self.waited = 0  # validations since then

    @property
    def is_over(self) -> bool:
        return self.patience is not None and self.waited >= self.patience

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # of the checkpoint that is resumed: its state is a dict, not the list that transformers declares
        callbacks: Any = state.stateful_callbacks
        saved = callbacks.get("KeepBest", self.state())["attributes"]
        self.best, self.waited = saved["best"], saved["waited"]
        control.should_training_stop = self.is_over

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Any = None,
        model: Any = None,
        **_: Any,
    ) -> None:
        value = metrics[self.metric]
        if self.best is None or self.is_better(value, self.best):
            self.best, self.waited = value, 0
            if self.keep and state.is_world_process_zero:
                self.keep(model, self.out)
            return
        self.waited += 1
        if self.is_over:
            control.should_training_stop = True
            if state.is_world_process_zero and state.global_step < state.max_steps:
                kept = "; the best weights are kept." if self.keep else "."
                told = f"No better validation {self.waited} times: training ends early{kept}"
                tqdm.write(told, file=sys.stderr)

    def state(self) -> dict:
        return {
            "args": {"out": str(self.out), "patience": self.patience},
            "attributes": {"best": self.best, "waited": self.waited},
        }

    @staticmethod
    def restore(model: torch.nn.Module, out: Path) -> None:
        """Puts the best weights into the model, where validation kept some."""
        if is_valid(out / BEST):
            with torch.no_grad():
                for name, tensor in load_file(out / BEST / "weights.safetensors").items():
                    model.get_parameter(name).copy_(tensor)
