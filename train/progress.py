"""What one sees and keeps of a training run: a bar, a JSON-lines log, a loss curve, the best weights, a clean stop.

Run: nothing by itself; sft.py hands these callbacks to transformers' Trainer. `draw_curve` serves both recipes.
"""

import json
import signal
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from train.saving import write_folder_atomically

LOG_FILE = "log.jsonl"
BEST = "best"


class Progress(TrainerCallback):
    """A bar with loss, supervised tokens/s and time left; every logged number also goes into log.jsonl, a line each."""

    def __init__(self, out: Path, supervised: int):
        self.log = out / LOG_FILE
        self.supervised = supervised  # tokens an epoch
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **_):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started, self.first_step = time.monotonic(), state.global_step
        self.tokens_per_step = self.supervised * args.num_train_epochs / max(state.max_steps, 1)
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", desc="training", dynamic_ncols=True)

    def on_step_end(self, args, state, control, **_):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **_):
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = (state.global_step - self.first_step) * self.tokens_per_step / seconds
        line = {k: float(v) for k, v in logs.items() if k in ("loss", "grad_norm", "learning_rate", "eval_loss")}
        if not line:
            return
        line |= {"step": state.global_step, "epoch": round(state.epoch, 4), "tokens_per_s": round(rate, 1), "seconds": round(seconds, 1)}
        self.shown |= {k: f"{line[k]:.3f}" for k in ("loss", "eval_loss") if k in line}
        self.bar.set_postfix({**self.shown, "tok/s": f"{rate:.0f}"})
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


class KeepBest(TrainerCallback, ExportableState):
    """Keeps the trained weights of the best validation in `best/`, and stops after `patience` validations without a better one."""

    def __init__(self, out: Path, patience: int, best: float | None = None, waited: int = 0):
        self.out, self.patience = out, patience
        self.best, self.waited = best, waited

    def on_evaluate(self, args, state, control, metrics=None, model=None, **_):
        loss = metrics["eval_loss"]
        if self.best is None or loss < self.best:
            self.best, self.waited = loss, 0
            weights = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}
            write_folder_atomically(self.out / BEST, lambda folder: save_file(weights, folder / "weights.safetensors"))
            return
        self.waited += 1
        if self.waited >= self.patience:
            print(f"\nvalidation has not improved {self.waited} times: stopping; the best weights are kept")
            control.should_training_stop = True

    def state(self) -> dict:
        return {"args": {"out": str(self.out), "patience": self.patience}, "attributes": {"best": self.best, "waited": self.waited}}

    @classmethod
    def from_state(cls, state: dict) -> "KeepBest":
        return cls(Path(state["args"]["out"]), state["args"]["patience"], **state["attributes"])

    @staticmethod
    def restore(model, out: Path) -> None:
        """Puts the best weights into the model, where validation kept some."""
        file = out / BEST / "weights.safetensors"
        if file.exists():
            with torch.no_grad():
                for name, tensor in load_file(file).items():
                    model.get_parameter(name).copy_(tensor)


class StopOnSignal(TrainerCallback):
    """Ctrl-C and SIGTERM save a checkpoint at the end of the step and end training."""

    def __init__(self):
        self.stopped = False

    def on_train_begin(self, args, state, control, **_):
        self.before = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}

    def on_step_end(self, args, state, control, **_):
        if self.stopped:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _stop(self, number, frame):
        self.stopped = True


def read_log(out: Path) -> list[dict]:
    """The lines of log.jsonl. A resumed run repeats the steps since its checkpoint: the later line of a step counts."""
    if not (out / LOG_FILE).exists():
        return []
    lines = [json.loads(line) for line in (out / LOG_FILE).read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return list({(line["step"], "eval_loss" in line): line for line in lines}.values())


def draw_curve(out: Path) -> None:
    """Draws loss.png from log.jsonl: nats per supervised token against steps, training and validation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read_log(out)
    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120)
    for key, label in (("loss", "training"), ("eval_loss", "validation")):
        points = sorted((line["step"], line[key]) for line in lines if key in line)
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    axes.set(xlabel="step", ylabel="nats per supervised token", title="loss")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out / "loss.png")
    pyplot.close(figure)
