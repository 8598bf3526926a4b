"""The training loop of recipe "convai": steps, learning rates, checkpoints, resuming, and what to do when something breaks.

    outputs/checkpoint-120-epoch-1/   the model after each epoch (save_model_every_epoch), as simpletransformers names it
    outputs/best_model/               the best by validation (evaluate_during_training)
    outputs/resume-150/               model, optimizer and random state, every save_steps steps or ten minutes; the newest two
    outputs/model.safetensors ...     the last model, when training is over; the resume-* folders go then

Every step is a function of its number: the order of an epoch and the wrong candidates come from seed and epoch, so that a
resumed run takes the same steps and ends in the same bytes (on a CPU with the same number of threads).
"""

import contextlib
import math
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from persona_bot.device import is_out_of_memory
from persona_bot.errors import UserError
from train.recipes.convai_examples import ConvaiExamples, Sequences, collate, epoch_batches, losses
from train.recipes.convai_state import (
    Progress,
    half_precision,
    load_state,
    make_optimizer,
    make_scheduler,
    save_state,
)
from train.run.checkpoints import (
    keep_newest,
    mend,
    newest_good,
    write_files_atomically,
    write_folder_atomically,
)

SAVE_SECONDS = 600.0  # what a kill may cost at most, where steps are slow
SAME_ON_RESUME = [
    "train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "manual_seed",
    "optimizer",
    "scheduler",
]
SAME_ON_RESUME += [
    "learning_rate",
    "weight_decay",
    "warmup_steps",
    "warmup_ratio",
    "max_grad_norm",
    "lm_coef",
    "mc_coef",
    "max_history",
]
SAME_ON_RESUME += ["num_candidates", "personality_permutations"]


@dataclass
class Hooks:
    """What the caller gets to see and to say while training runs. All may stay as they are."""

    # step, steps, epoch, loss, lm_loss, mc_loss, learning_rate, tokens_per_s, eta
    on_step: Callable[[dict], None] = lambda record: None
    # step, epoch, language_model_loss, f1_score
    on_evaluation: Callable[[dict], None] = lambda record: None
    on_message: Callable[[str], None] = print
    # asked after each step; True saves a resume checkpoint and returns
    should_stop: Callable[[], bool] = lambda: False


class ConvaiTraining:
    """One run: `ConvaiTraining(...).run()` trains `model` in place and leaves folders under `out`."""

    def __init__(
        self,
        model,
        examples: ConvaiExamples,
        args,
        out: Path,
        save_model: Callable[[Path], None],
        evaluate: Callable[[], dict[str, float]] | None = None,
        hooks: Hooks | None = None,
    ):
        """`args`: simpletransformers' ConvAIArgs; `save_model(folder)` writes a loadable checkpoint; `evaluate()` gives scores."""
        self.model, self.examples, self.args, self.out, self.save_model = (
            model,
            examples,
            args,
            out,
            save_model,
        )
        self.evaluate, self.hooks = evaluate, hooks or Hooks()
        self.device = next(model.parameters()).device
        self.steps_an_epoch = math.ceil(
            len(examples) / args.train_batch_size / args.gradient_accumulation_steps
        )
        self.steps = self.steps_an_epoch * int(args.num_train_epochs)
        self.optimizer = make_optimizer(model, args)
        self.scheduler = make_scheduler(self.optimizer, args, self.steps)
        self.dtype = half_precision(self.device) if args.fp16 else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.progress = Progress(micro=args.train_batch_size)

    def run(self, resume: bool = False) -> Progress:
        """Trains to the end or to an early stop; or until `should_stop`, then `progress.finished` is False."""
        self.out.mkdir(parents=True, exist_ok=True)
        mend(self.out)
        if resume and self._is_finished():
            self.hooks.on_message(
                f"The training in {self.out} is finished; there is nothing to resume."
            )
            return Progress(step=self.steps, finished=True)
        self._resume() if resume else self._begin()
        self._since = self._saved = time.monotonic()
        self._since_step, self._tokens = self.progress.step, 0
        batches, of_epoch, size = [], -1, self.args.gradient_accumulation_steps
        while self.progress.step < self.steps and not self.progress.ended_early:
            epoch, k = divmod(self.progress.step, self.steps_an_epoch)
            if epoch != of_epoch:
                batches, of_epoch = (
                    epoch_batches(
                        len(self.examples), self.args.train_batch_size, self.args.manual_seed, epoch
                    ),
                    epoch,
                )
            self._step(
                [
                    [self.examples.sequences(number, epoch) for number in batch]
                    for batch in batches[k * size : (k + 1) * size]
                ]
            )
            if self._between_steps(epoch, k + 1 == self.steps_an_epoch):
                return self.progress
        return self._finish()

    # ---- one step

    def _step(self, batches: list[list[Sequences]]) -> None:
        """One optimizer step: on the mean of the batches' losses, each a mean over its learnt ids and over its examples."""
        self.model.train()
        gradients = None
        while gradients is None:
            try:
                gradients = self._gradients(batches)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # outside of `except`, which would keep the tensors of the failed pass alive
            if gradients is None:
                self._shrink()
        word, choice, tokens = gradients
        self._update(word, choice)
        self.progress.step += 1
        self._tokens += tokens
        self._report(word, choice)

    def _gradients(self, batches: list[list[Sequences]]) -> tuple[float, float, int]:
        """The step's gradients in pieces of `micro` examples, equal to those of whole batches. Returns both losses and the tokens."""
        self.optimizer.zero_grad()
        word_sum, choice_sum, tokens = 0.0, 0.0, 0
        for examples in batches:
            learnt = sum(len(example.ids[-1]) - example.start for example in examples)
            for k in range(0, len(examples), self.progress.micro):
                batch = collate(examples[k : k + self.progress.micro], self.examples.layout.pad).to(
                    self.device
                )
                with self._autocast():
                    word, choice = losses(self.model, batch)
                word, choice = (
                    word / (learnt * len(batches)),
                    choice / (len(examples) * len(batches)),
                )
                self.scaler.scale(self.args.lm_coef * word + self.args.mc_coef * choice).backward()
                word_sum, choice_sum = word_sum + word.detach(), choice_sum + choice.detach()
            tokens += learnt
        return word_sum.item(), choice_sum.item(), tokens

    def _update(self, word: float, choice: float) -> None:
        """Clips and applies the gradients; raises UserError instead of spoiling the weights with numbers that are none."""
        if not math.isfinite(word + choice):
            raise self._not_finite(f"The loss became {word + choice}")
        if self.args.optimizer == "AdamW":
            self.scaler.unscale_(self.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm)
            # the scaler skips such a step by itself
            if not self.scaler.is_enabled() and not torch.isfinite(norm):
                raise self._not_finite("The gradients became infinite")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._advance_rate(1)

    def _advance_rate(self, steps: int) -> None:
        # about an optimizer without steps: an earlier process took them, or the scaler skipped the
        # first
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(steps):
                self.scheduler.step()

    def _not_finite(self, what: str) -> UserError:
        kept = newest_good(self.out, "resume-*")
        cure = f"the last good checkpoint is {kept}" if kept else "nothing was saved yet"
        return UserError(
            f"{what} in step {self.progress.step + 1}, so training stopped; {cure}; lower learning_rate and start again."
        )

    def _shrink(self) -> None:
        """After running out of memory: half the examples in a forward pass, twice the passes, the same step."""
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.progress.micro == 1:
            raise UserError(
                "Memory ran out with a single example in a forward pass; take a smaller model, or shorter dialogues."
            )
        self.progress.micro = (self.progress.micro + 1) // 2
        self.hooks.on_message(
            f"Memory ran out: from now on {self.progress.micro} examples at once, and more passes a step."
        )

    def _autocast(self):
        return (
            torch.autocast(self.device.type, self.dtype) if self.dtype else contextlib.nullcontext()
        )

    def _report(self, word: float, choice: float) -> None:
        seconds, done = time.monotonic() - self._since, self.progress.step - self._since_step
        record = {
            "step": self.progress.step,
            "steps": self.steps,
            "epoch": round(self.progress.step / self.steps_an_epoch, 4),
            "loss": self.args.lm_coef * word + self.args.mc_coef * choice,
            "lm_loss": word,
            "mc_loss": choice,
            "learning_rate": self.scheduler.get_last_lr()[0],
            "tokens_per_s": self._tokens / max(seconds, 1e-9),
            "eta": seconds / done * (self.steps - self.progress.step),
        }
        self.hooks.on_step(record)

    # ---- between steps

    def _between_steps(self, epoch: int, ends_epoch: bool) -> bool:
        """Evaluates and saves where it is time to; True when the run is to be left, to be resumed later."""
        args, step = self.args, self.progress.step
        every = args.evaluate_during_training_steps
        if self.evaluate and (
            (every > 0 and step % every == 0) or (ends_epoch and args.evaluate_each_epoch)
        ):
            self._evaluate()
        if ends_epoch and args.save_model_every_epoch and not args.no_save:
            write_folder_atomically(
                self.out / f"checkpoint-{step}-epoch-{epoch + 1}", self._save_finite
            )
        stops = step < self.steps and not self.progress.ended_early and self.hooks.should_stop()
        is_due = (
            args.save_steps > 0 and step % args.save_steps == 0
        ) or time.monotonic() - self._saved > SAVE_SECONDS
        if (stops or is_due) and not args.no_save:
            self._save_resume()
        return stops

    def _evaluate(self) -> None:
        """Scores the model, keeps the best, and ends the run when there was no gain for too long."""
        args, progress = self.args, self.progress
        self.model.eval()
        scores = self.evaluate()
        record = {
            "step": progress.step,
            "epoch": round(progress.step / self.steps_an_epoch, 4),
            **scores,
        }
        progress.evaluations.append(record)
        self.hooks.on_evaluation(record)
        value = scores.get(args.early_stopping_metric, scores["language_model_loss"])
        sign = -1 if args.early_stopping_metric_minimize else 1
        if progress.best is None or sign * (value - progress.best) > args.early_stopping_delta:
            progress.best, progress.without_gain = value, 0
            if args.save_best_model and not args.no_save:
                write_folder_atomically(self.out / "best_model", self._save_finite)
            return
        progress.without_gain += 1
        if args.use_early_stopping and progress.without_gain > args.early_stopping_patience:
            self.hooks.on_message(
                f"No better {args.early_stopping_metric} in {progress.without_gain} evaluations: training ends early."
            )
            progress.ended_early = True

    # ---- saving and resuming

    def _begin(self) -> None:
        """A first resume checkpoint: it finds a full disk before the work does, and from now on there always is one."""
        torch.manual_seed(self.args.manual_seed)
        if not self.args.no_save:
            write_folder_atomically(self.out / "resume-0", self._write_resume)
        for other in self.out.glob("resume-*"):  # an earlier run's
            if other.name != "resume-0":
                shutil.rmtree(other)

    def _resume(self) -> None:
        folder = newest_good(self.out, "resume-*")
        if folder is None:
            self.hooks.on_message(
                f"{self.out} holds no checkpoint to resume from: training starts at the beginning."
            )
            return self._begin()
        self.progress = load_state(
            folder, self.model, self.optimizer, self.scaler, self._identity()
        )
        self._advance_rate(self.progress.step)
        self.hooks.on_message(
            f"Resuming from {folder.name}: step {self.progress.step} of {self.steps}."
        )

    def _is_finished(self) -> bool:
        """The last model is there and no resume checkpoint any more."""
        return (self.out / "model.safetensors").exists() and not [*self.out.glob("resume-*")]

    def _save_resume(self) -> None:
        write_folder_atomically(self.out / f"resume-{self.progress.step}", self._write_resume)
        keep_newest(self.out, "resume-*", 2)
        self._saved = time.monotonic()

    def _write_resume(self, folder: Path) -> None:
        self._save_finite(folder)
        save_state(folder, self.optimizer, self.scaler, self.progress, self._identity())

    def _save_finite(self, folder: Path) -> None:
        if not all(torch.isfinite(weight).all() for weight in self.model.parameters()):
            raise self._not_finite("A weight became infinite")
        self.save_model(folder)

    def _identity(self) -> dict:
        """What must be the same for a resumed run to take the same steps."""
        return {
            "data": self.examples.fingerprint(),
            **{name: getattr(self.args, name) for name in SAME_ON_RESUME},
        }

    def _finish(self) -> Progress:
        if not self.args.no_save:
            write_files_atomically(self.out, self._save_finite)
            keep_newest(self.out, "resume-*", 0)
        self.model.eval()
        self.progress.finished = True
        return self.progress
