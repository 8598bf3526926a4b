"""What one sees and keeps of a training run: a bar, a JSON-lines log, a loss curve, a clean stop."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from persona_bot.errors import UserError

LOG_FILE = "log.jsonl"
LOGGED: tuple[str, ...] = ("loss", "lm_loss", "mc_loss", "grad_norm", "learning_rate")
LOGGED += ("eval_loss", "language_model_loss", "f1_score")


class RunLog:
    """log.jsonl. Raises UserError when the disk is full."""

    def __init__(self, out: Path):
        self.file = out / LOG_FILE
        self.seconds = 0.0  # of the runs before this one

    def begin(self, step: int) -> None:
        """Takes out the lines of steps that a kill lost and that will be taken again."""
        kept = [line for line in read_log(self.file.parent) if line["step"] <= step]
        self.seconds = max((line["seconds"] for line in kept), default=0.0)
        self._guard(self._rewrite, kept)

    def add(self, line: dict) -> None:
        line["seconds"] = round(line["seconds"] + self.seconds, 1)
        self._guard(self._append, line)

    def _rewrite(self, lines: list[dict]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_name(f".{LOG_FILE}.new")
        new.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        os.replace(new, self.file)

    def _append(self, line: dict) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _guard(self, write: Callable[[Any], None], lines: Any) -> None:
        try:
            write(lines)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"{self.file} cannot be written ({reason}); checkpoints are intact: free space, then --resume."
            ) from error


class Progress(TrainerCallback):
    """A bar with loss, supervised tokens/s and time left; every logged number also goes into log.jsonl, a line each."""

    def __init__(self, out: Path | None, supervised: int):
        """`out`: the folder of log.jsonl; None: a bar and no file. `supervised`: tokens an epoch."""
        self.log = RunLog(out) if out else None
        self.supervised = supervised
        self.shown: dict[str, str] = {}
        self.bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step
        self.tokens_per_step = self.supervised * args.num_train_epochs / max(state.max_steps, 1)
        if state.is_world_process_zero:
            if self.log:
                self.log.begin(state.global_step)
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                unit="step",
                desc="training",
                dynamic_ncols=True,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.bar:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = (state.global_step - self.first_step) * self.tokens_per_step / seconds
        line = {k: float(v) for k, v in (logs or {}).items() if k in LOGGED}
        if not line or not self.bar:
            return
        line |= {
            "step": state.global_step,
            "epoch": round(state.epoch, 4),
            "tokens_per_s": round(rate, 1),
            "seconds": seconds,
        }
        self.shown |= {k: f"{line[k]:.3f}" for k in ("loss", "eval_loss") if k in line}
        self.bar.set_postfix({**self.shown, "tok/s": f"{rate:.0f}"})
        if self.log:
            self.log.add(line)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the bar's line, however training ends: what is told next begins a line of its own."""
        if self.bar:
            self.bar.close()


class StopSignals:
    """While entered, Ctrl-C and SIGTERM only set `asked`; a second one acts as it always does."""

    def __init__(self) -> None:
        self.asked = False
        self.number: int = signal.SIGINT  # which one asked
        self.before: dict = {}

    def __enter__(self) -> "StopSignals":
        # elsewhere Python allows no handlers
        if threading.current_thread() is threading.main_thread():
            self.before = {
                number: signal.signal(number, self._note)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.asked, self.number = True, number
        signal.signal(number, self.before[number])
        os.write(2, b"\nStopping after this step, and saving ..\n")  # print is not allowed here


class Interrupted(UserError):
    """Training was stopped by a signal and saved; `exit_code` is the one that shells and schedulers know: 130 or 143."""

    def __init__(self, out: Path, number: int):
        super().__init__(
            f"Training was interrupted and its state saved in {out}; the same command with --resume goes on."
        )
        self.exit_code = 128 + number


class StopOnSignal(TrainerCallback):
    """Saves a checkpoint at the end of the step and ends training, once a signal asked for it."""

    def __init__(self, signals: StopSignals):
        self.signals = signals

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if args.world_size > 1:  # a signal reaches one process a step earlier than another
            asked = torch.tensor(int(self.signals.asked), device=args.device)
            torch.distributed.all_reduce(asked)
            self.signals.asked = bool(asked)
        if self.signals.asked:
            control.should_save = control.should_training_stop = True


def read_log(out: Path) -> list[dict]:
    """The lines of log.jsonl, without one that a kill cut off."""
    file, lines = out / LOG_FILE, []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def draw_curve(out: Path) -> None:
    """Draws loss.png from log.jsonl: nats per supervised token against steps, training and validation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read_log(out)
    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120)
    # convai's loss has two parts
    for keys, label in ((("lm_loss", "loss"), "training"), (("eval_loss",), "validation")):
        points = [
            (line["step"], next(line[key] for key in keys if key in line))
            for line in lines
            if not line.keys().isdisjoint(keys)
        ]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    axes.set(xlabel="step", ylabel="nats per supervised token", title="loss")
    if lines:
        axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out / "loss.png")
    pyplot.close(figure)
