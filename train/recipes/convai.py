"""Recipe "convai": simpletransformers' ConvAIModel (GPT and GPT-2 with two heads) on today's transformers, without its faults.

Run: `python -m train.finetune --recipe convai --model gpt2 --data FILE`; or as in a notebook of simpletransformers:

    model = ConvAIModel("gpt2", "gpt2", args={"num_train_epochs": 5, "train_batch_size": 6})
    model.train_model("my_dialogues.json")
    model.eval_model("my_validation.json")        # language_model_loss and f1_score, as it computes them
    model.interact(personality=["i keep bees."])

Ids, token types, labels and both losses are stock's; tests/train/test_convai.py compares them with stock itself. What differs:

    examples       padded per batch, built when needed; wrong candidates drawn anew each epoch; too long a history is cut
    no caches      nothing is pickled or read back for another file; settings without effect are named on stderr
    checkpoints    whole or not there; resume=True goes on from the last one; output_dir is obeyed
    last steps     an epoch's leftover batches make a smaller step; stock carries their gradients into the next epoch
    evaluation     evaluate_during_training works; early stopping watches language_model_loss where the metric is not computed;
                   early_stopping_delta is how much better a score must be
    metrics        that eval_model and train_model are given are computed, over all replies; stock takes and forgets them
    save_steps     saves what a resumed run needs, and keeps the newest two, not one more model each time
    numbers        a loss that is none stops training; fp16 is bfloat16 where the GPU has it; no manual_seed means seed 0
    chat           dropout off, one layout (also for a history of even length), cut to what the model can read; without a
                   personality one is drawn from this repository's sentences, and no data set is downloaded

Settings that do not exist, or cannot be honoured, are refused.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from train.data.dialogues import Dialogue, read_dialogues
from train.data.fitting import that_fit
from train.data.personachat import fetch_personachat
from train.data.sources import plural
from train.metrics.convai import Metric, check_metrics, convai_scores
from train.recipes.convai_base import LoadedModel, check_encoding, model_type_of
from train.recipes.convai_chat import answer, some_personality
from train.recipes.convai_examples import ConvaiExamples
from train.recipes.convai_run import Trained, train_double_heads
from train.recipes.convai_settings import (
    ConvAIArgs,
    as_dict,
    check_args,
    check_target,
    tell_without_effect,
)
from train.recipes.convai_trainer import identity_of
from train.run.checkpoints import latest_valid, write_files_atomically
from train.run.log import Progress


class ConvAIModel(LoadedModel):
    """Used as stock's is, with the faults listed above mended; folders of either load in the other."""

    # ---- training

    def train_model(
        self,
        train_file: str | Path | None = None,
        output_dir: str | Path | None = None,
        show_running_loss: bool = True,
        args: dict | ConvAIArgs | None = None,
        eval_file: str | Path | None = None,
        verbose: bool = True,
        resume: bool = False,
        **metrics: Metric,
    ) -> tuple[int, list[dict]]:
        """Trains on a file (None: the public Persona-Chat) and returns the steps done and the evaluations made on the way.

        `metrics`: more scores for these by name, functions of labels and predictions as scikit-learn's are.
        """
        check_metrics(metrics)
        settings = as_dict(args)
        tell_without_effect(settings)
        self.args.update_from_dict(settings)
        train = _dialogues(train_file, "train")
        valid = _dialogues(eval_file, "valid") if self.args.evaluate_during_training else None
        if not valid and not self.args.silent:
            print(
                f"Nothing is held out of {plural(len(train), 'dialogue')}: no validation, no early stopping; "
                "evaluate_during_training with an eval_file names some to validate on.",
                file=sys.stderr,
            )
        out = Path(output_dir or self.args.output_dir)
        done = self.fit(
            train,
            valid,
            out,
            resume=resume,
            bar=show_running_loss and not self.args.silent,
            metrics=metrics,
        )
        return done.step, done.evaluations

    def fit(
        self,
        train: list[Dialogue],
        valid: list[Dialogue] | None,
        out: Path,
        callbacks: Sequence[TrainerCallback] = (),
        resume: bool = False,
        bar: bool = False,
        report_to: str = "none",
        metrics: Mapping[str, Metric] | None = None,
        base: str | None = None,
    ) -> Trained:
        """Trains on dialogues with the settings in `self.args`; the model, and checkpoints on the way, go to `out`.

        `base`: the name of what training began with, which a resumed run must share; checkpoints hold all weights.
        """
        args = self.args
        check_target(Path(out), args.overwrite_output_dir or resume)
        check_encoding(self.layout, train, self.name)
        self._move_model_to_device()
        args.manual_seed = args.manual_seed or 0
        examples = self.examples(train)
        identity = identity_of(examples, args, base)
        valid = self.that_fit(valid or [], may_be_none=True)
        if bar:
            callbacks = [*callbacks, Progress(None, examples.learnt)]

        def scores() -> dict[str, float]:  # of the model as it is then, without dropout
            return convai_scores(self.checkpoint, valid, iter, args.eval_batch_size, metrics)

        return train_double_heads(
            self.model,
            examples,
            args,
            Path(out),
            identity,
            self.write,
            scores if valid else None,
            callbacks,
            resume,
            report_to,
        )

    def that_fit(self, dialogues: list[Dialogue], may_be_none: bool = False) -> list[Dialogue]:
        """The dialogues without replies that cannot be scored; stderr counts them."""
        positions = self.model.config.max_position_embeddings
        return that_fit(self.layout, dialogues, positions, may_be_none=may_be_none)

    def examples(self, dialogues: list[Dialogue]) -> ConvaiExamples:
        args = self.args
        return ConvaiExamples(
            self.layout,
            dialogues,
            self.model.config.max_position_embeddings,
            args.num_candidates,
            args.personality_permutations,
            args.manual_seed or 0,
        )

    # ---- the rest of stock's surface

    def save_model(
        self, output_dir: str | Path | None = None, model: Any = None, results: Any = None
    ) -> None:
        write_files_atomically(_made(output_dir or self.args.output_dir), self.write)

    def eval_model(
        self,
        eval_file: str | Path | None = None,
        output_dir: str | Path | None = None,
        verbose: bool = True,
        silent: bool = False,
        **metrics: Metric,
    ) -> dict[str, float]:
        """Scores a file (None: the public Persona-Chat's valid part); also in `eval_results.txt` of the output folder.

        `metrics`: as train_model's.
        """
        check_metrics(metrics)
        dialogues = self.that_fit(_dialogues(eval_file, "valid"))
        bar: Callable[[Iterable], Iterable] = iter if silent or self.args.silent else tqdm
        self.results = convai_scores(
            self.checkpoint, dialogues, bar, self.args.eval_batch_size, metrics
        )
        lines = [f"{name} = {value}\n" for name, value in sorted(self.results.items())]
        (_made(output_dir or self.args.output_dir) / "eval_results.txt").write_text(
            "".join(lines), encoding="utf-8"
        )
        return self.results

    def interact(self, personality: list[str] | None = None) -> None:
        """A chat in the terminal; an empty line, Ctrl-D or Ctrl-C ends it."""
        sentences = personality or some_personality()
        history: list[str] = []
        while True:
            try:
                message = input(">>> ")
            except (EOFError, KeyboardInterrupt):
                return
            if not message.strip():
                return
            reply, history = self.interact_single(message, history, sentences)
            print(reply)

    def interact_single(
        self,
        message: str,
        history: list,
        personality: Sequence[str] | None = None,
        encode_history: bool = True,
    ) -> tuple[str, list]:
        """The reply to a message, and the history with both: texts, or lists of ids where `encode_history` is False.

        Raises UserError for a personality that the model cannot hold.
        """
        if not encode_history:
            texts = [self.tokenizer.decode(ids) for ids in history]
            text, _ = self.interact_single(message, texts, personality)
            return text, [*history, *(self.layout.encode(said) for said in (message, text))]
        text = answer(self.checkpoint, self.args, [*history, message], personality)
        return text, [*history, message, text]


def train_convai(
    model_name: str,
    train: list[Dialogue],
    valid: list[Dialogue] | None,
    out: Path,
    args: dict | None = None,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    use_cuda: bool | None = None,
) -> Trained:
    """Trains a GPT or GPT-2 (a folder, or a name on the Hub) and leaves a checkpoint in `out`.

    `args`: simpletransformers' settings by name; `callbacks`: transformers' own, called on the way; `valid` is scored when
    `evaluate_during_training` is set, or with early stopping. Raises UserError.
    """
    check_args(args or {})
    source = (latest_valid(Path(out), "resume-*") if resume else None) or model_name
    model = ConvAIModel(model_type_of(source), str(source), args, use_cuda)
    return model.fit(
        train, valid if model.args.evaluate_during_training else None, out, callbacks, resume
    )


def _dialogues(file: str | Path | None, split: str) -> list[Dialogue]:
    """Of a file, or of the public Persona-Chat, whose few bad entries nobody here can mend."""
    return (
        read_dialogues(file, split)
        if file
        else read_dialogues(fetch_personachat(), split, tolerate=20)
    )


def _made(folder: str | Path) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
