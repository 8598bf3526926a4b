"""Recipe "convai": simpletransformers' ConvAIModel (GPT and GPT-2 with two heads) on today's transformers, without its faults.

Run: `python -m train.finetune --recipe convai --model gpt2 --data FILE`; or as in a notebook of simpletransformers:

    model = ConvAIModel("gpt2", "gpt2", args={"num_train_epochs": 5, "train_batch_size": 6})
    model.train_model("my_dialogues.json")
    model.eval_model("my_validation.json")        # language_model_loss and f1_score, as it computes them
    model.interact(personality=["i keep bees."])

Ids, token types, labels and both losses are stock's; tests/test_convai.py compares them with stock itself. What differs:

    examples       padded per batch, built when needed; wrong candidates drawn anew each epoch; too long a history is cut
    no caches      nothing is pickled or read back for another file; settings without effect are named on stderr
    checkpoints    whole or not there; resume=True goes on from the last one; output_dir is obeyed
    last steps     an epoch's leftover batches make a smaller step; stock carries their gradients into the next epoch
    evaluation     evaluate_during_training works; early stopping watches language_model_loss where the metric is not computed;
                   early_stopping_delta is how much better a score must be
    save_steps     saves what a resumed run needs, and keeps the newest two, not one more model each time
    numbers        a loss that is none stops training; fp16 is bfloat16 where the GPU has it; no manual_seed means seed 0
    chat           dropout off, one layout (also for a history of even length), cut to what the model can read; without a
                   personality one is drawn from this repository's sentences, and no data set is downloaded

Settings that do not exist, or cannot be honoured, are refused.
"""

import copy
import json
import secrets
import sys
import types
from pathlib import Path

import torch
import transformers
from tqdm import tqdm
from transformers import AutoTokenizer

from persona_bot.checkpoints.files import check_files, save_layout, save_tokenizer
from persona_bot.checkpoints.load import Checkpoint, find_folder
from persona_bot.device import pick_device
from persona_bot.errors import UserError
from persona_bot.persona import Persona, random_persona
from persona_bot.prompt import ConvaiLayout
from persona_bot.replies.local import LocalModel
from persona_bot.settings import FINISH_WITHIN, Settings
from train.data.dialogues import Dialogue, read_dialogues
from train.data.personachat import fetch_personachat
from train.metrics.convai import convai_scores
from train.recipes.convai_examples import ConvaiExamples
from train.recipes.convai_loop import ConvaiTraining, Hooks
from train.recipes.convai_settings import (
    ConvAIArgs,
    as_dict,
    check_args,
    check_target,
    tell_without_effect,
)
from train.recipes.convai_state import Progress
from train.run.checkpoints import newest_good, write_files_atomically

# simpletransformers.conv_ai.conv_ai_utils imports a function that transformers 4.22 dropped, so the
# package cannot be
# imported as it is. Its model takes one thing from there, the reader of the pickled caches, which
# nothing calls here.
_utils = types.ModuleType("simpletransformers.conv_ai.conv_ai_utils")
_utils.get_dataset = None
sys.modules.setdefault(_utils.__name__, _utils)

from simpletransformers.conv_ai import ConvAIModel as StockConvAIModel  # noqa: E402  (after the patch)
from simpletransformers.conv_ai.conv_ai_model import ATTR_TO_SPECIAL_TOKEN  # noqa: E402

GPT_TOKENIZERS = (
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "OpenAIGPTTokenizer",
    "OpenAIGPTTokenizerFast",
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
)
CHECKED = 100  # dialogues whose encoding is checked
MODEL_TYPES = {"openai-gpt": "gpt", "gpt2": "gpt2"}  # transformers' name -> simpletransformers'


class ConvAIModel(StockConvAIModel):
    """Used as stock's is, with the faults listed above mended; folders of either load in the other."""

    def __init__(
        self,
        model_type: str,
        model_name: str,
        args: dict | ConvAIArgs | None = None,
        use_cuda: bool | None = None,
        cuda_device: int = -1,
    ):
        """`model_type`: gpt or gpt2; `model_name`: a folder, or a name on the Hub; `use_cuda`: None uses a GPU where there is one.

        Settings without effect here are named on stderr.

        Raises UserError for settings and checkpoints that cannot be used.
        """
        if model_type not in MODEL_TYPES.values():
            raise UserError(
                f"ConvAIModel trains gpt and gpt2 here, not {model_type}; use recipe sft for other models."
            )
        if use_cuda and not torch.cuda.is_available():
            raise UserError(
                "use_cuda is True and this machine has no CUDA GPU that torch can use; leave use_cuda out."
            )
        folder = find_folder(model_name)
        check_files(folder)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        settings = {"manual_seed": 0, "output_dir": "outputs", **as_dict(args)}
        tell_without_effect(settings)
        # the new embeddings and the ranking head begin at random
        torch.manual_seed(settings["manual_seed"] or 0)
        try:
            super().__init__(
                model_type,
                str(folder),
                settings,
                torch.cuda.is_available() if use_cuda is None else use_cuda,
                cuda_device,
            )
        except Exception as error:  # of transformers, safetensors, tokenizers
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"{model_name} cannot be loaded as a {model_type} model ({reason}); name another checkpoint."
            ) from error
        self.name = self.args.model_name = (
            Path(model_name).name if Path(model_name).exists() else model_name
        )
        self.model = self.model.float().eval()  # type: ignore[has-type]
        if use_cuda is None and not torch.cuda.is_available():
            self.device = pick_device()

    def add_special_tokens_(self, model, tokenizer) -> None:
        """Adds the five tokens, and embeddings for them, to the folder's own kind of tokenizer.

        Stock takes GPT's whatever the folder says, and asks for `tokenizer.encoder`, which transformers 5 has not.
        """
        if folder_class(tokenizer.name_or_path) not in GPT_TOKENIZERS:
            tokenizer = self.tokenizer = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
        tokenizer.add_special_tokens(ATTR_TO_SPECIAL_TOKEN)
        if model.get_input_embeddings().num_embeddings < len(tokenizer):
            model.resize_token_embeddings(len(tokenizer))

    # ---- training

    def train_model(
        self,
        train_file=None,
        output_dir=None,
        show_running_loss=True,
        args=None,
        eval_file=None,
        verbose=True,
        resume=False,
    ) -> tuple[int, list[dict]]:
        """Trains on a file (None: the public Persona-Chat) and returns the steps done and the evaluations made on the way."""
        settings = as_dict(args)
        tell_without_effect(settings)
        self.args.update_from_dict(settings)
        train = _dialogues(train_file, "train")
        valid = _dialogues(eval_file, "valid") if self.args.evaluate_during_training else None
        out = Path(output_dir or self.args.output_dir)
        with tqdm(unit="step", disable=self.args.silent or not show_running_loss) as bar:
            progress = self.fit(
                train,
                valid,
                out,
                Hooks(on_step=lambda record: _show(bar, record), on_message=bar.write),
                resume,
            )
        return progress.step, progress.evaluations

    def fit(
        self,
        train: list[Dialogue],
        valid: list[Dialogue] | None,
        out: Path,
        hooks: Hooks | None = None,
        resume: bool = False,
    ) -> Progress:
        """Trains on dialogues with the settings in `self.args`; the model, and checkpoints on the way, go to `out`."""
        args, room = self.args, self.model.config.max_position_embeddings
        check_target(Path(out), args.overwrite_output_dir or resume)
        check_encoding(self.layout, train, self.name)
        self._move_model_to_device()
        args.manual_seed = args.manual_seed or 0
        examples = ConvaiExamples(
            self.layout,
            train,
            room,
            args.num_candidates,
            args.personality_permutations,
            args.manual_seed,
        )
        scores = (
            (lambda: convai_scores(self.checkpoint, valid, batch_size=args.eval_batch_size))
            if valid
            else None
        )
        return ConvaiTraining(self.model, examples, args, Path(out), self.write, scores, hooks).run(
            resume
        )

    # ---- the rest of stock's surface

    @property
    def layout(self) -> ConvaiLayout:
        return ConvaiLayout(self.tokenizer, 2 * self.args.max_history + 1)

    @property
    def checkpoint(self) -> Checkpoint:
        """The model as the chat and the scores know one; without dropout."""
        self._move_model_to_device()
        room = self.model.config.max_position_embeddings
        return Checkpoint(
            self.model.eval(),
            self.tokenizer,
            self.layout,
            self.name,
            torch.device(self.device),
            room,
            ranking_head=True,
        )

    def write(self, folder: Path) -> None:
        """A checkpoint that stock ConvAIModel, the page and the evaluation load."""
        self.model.save_pretrained(folder)
        save_tokenizer(self.tokenizer, Path(folder))
        args = copy.copy(self.args)
        # stock would ask for a validation file as soon as it loads this
        args.evaluate_during_training = False
        args.save(folder)
        save_layout(Path(folder), self.layout)

    def save_model(self, output_dir=None, model=None, results=None) -> None:
        write_files_atomically(_made(output_dir or self.args.output_dir), self.write)

    def eval_model(
        self, eval_file=None, output_dir=None, verbose=True, silent=False
    ) -> dict[str, float]:
        """Scores a file (None: the public Persona-Chat's valid part); also in `eval_results.txt` of the output folder."""
        dialogues = _dialogues(eval_file, "valid")
        bar = (lambda items: items) if silent or self.args.silent else tqdm
        self.results = convai_scores(self.checkpoint, dialogues, bar, self.args.eval_batch_size)
        lines = [f"{name} = {value}\n" for name, value in sorted(self.results.items())]
        (_made(output_dir or self.args.output_dir) / "eval_results.txt").write_text(
            "".join(lines), encoding="utf-8"
        )
        return self.results

    def interact(self, personality: list[str] | None = None) -> None:
        """A chat in the terminal; an empty line, Ctrl-D or Ctrl-C ends it."""
        personality = personality or random_persona(secrets.randbits(32)).sentences
        history: list[str] = []
        while True:
            try:
                message = input(">>> ")
            except (EOFError, KeyboardInterrupt):
                return
            if not message.strip():
                return
            reply, history = self.interact_single(message, history, personality)
            print(reply)

    def interact_single(
        self,
        message: str,
        history: list,
        personality: list[str] | None = None,
        encode_history: bool = True,
    ) -> tuple[str, list]:
        """The reply to a message, and the history with both: texts, or lists of ids where `encode_history` is False.

        Raises UserError for a personality that the model cannot hold.
        """
        if not encode_history:
            texts = [self.tokenizer.decode(ids) for ids in history]
            text, _ = self.interact_single(message, texts, personality)
            return text, [*history, *(self.layout.encode(said) for said in (message, text))]
        args = self.args
        personality = personality or random_persona(secrets.randbits(32)).sentences
        # as stock does, and Persona-Chat is
        persona = Persona("", tuple(sentence.lower() for sentence in personality))
        began = [""] if len(history) % 2 else []  # the persona did
        settings = Settings(
            temperature=args.temperature if args.do_sample else 0.0,
            top_p=args.top_p or 1.0,
            top_k=args.top_k or 0,
            min_tokens=args.min_length,
            # room to end the sentence instead of breaking off
            max_tokens=args.max_length + FINISH_WITHIN,
            repetition_penalty=1.0,
            no_repeat_ngram=0,
        )
        reply = LocalModel.plain(self.checkpoint).reply(
            persona, [*began, *history, message], settings
        )
        text = "".join(reply)
        return text, [*history, message, text]


def train_convai(
    model_name: str,
    train: list[Dialogue],
    valid: list[Dialogue] | None,
    out: Path,
    args: dict | None = None,
    resume: bool = False,
    hooks: Hooks | None = None,
    use_cuda: bool | None = None,
) -> Progress:
    """Trains a GPT or GPT-2 (a folder, or a name on the Hub) and leaves a checkpoint in `out`.

    `args`: simpletransformers' settings by name; `hooks`: what to call on the way (convai_loop.py); `valid` is scored when
    `evaluate_during_training` is set, or with early stopping. Raises UserError.
    """
    check_args(args or {})
    source = (newest_good(Path(out), "resume-*") if resume else None) or model_name
    model = ConvAIModel(model_type_of(source), str(source), args, use_cuda)
    return model.fit(
        train, valid if model.args.evaluate_during_training else None, out, hooks, resume
    )


def model_type_of(name: str | Path) -> str:
    """gpt or gpt2, from the checkpoint's config; raises UserError for any other."""
    try:
        kind = json.loads((find_folder(str(name)) / "config.json").read_text(encoding="utf-8"))[
            "model_type"
        ]
        return MODEL_TYPES[kind]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{name} is no GPT or GPT-2 checkpoint, which recipe convai needs; use recipe sft, or name gpt2."
        ) from None


def folder_class(folder: str) -> str:
    """The class that a folder's tokenizer was saved as; GPT-2's where it does not say."""
    try:
        content = json.loads((Path(folder) / "tokenizer_config.json").read_text(encoding="utf-8"))
        return content.get("tokenizer_class") or GPT_TOKENIZERS[0]
    except (OSError, ValueError, AttributeError):
        return GPT_TOKENIZERS[0]


def check_encoding(layout: ConvaiLayout, dialogues: list[Dialogue], name: str) -> None:
    """Raises UserError where the tokenizer makes nothing of a reply: it belongs to another language, or to another model."""
    for dialogue in dialogues[:CHECKED]:
        for utterance in dialogue.utterances:
            reply = utterance.candidates[-1]
            if reply.strip() and not layout.encode(reply):
                raise UserError(
                    f"The tokenizer of {name} encodes {reply[:40]!r} to nothing; name a checkpoint whose tokenizer knows the language."
                )


def _dialogues(file, split: str) -> list[Dialogue]:
    """Of a file, or of the public Persona-Chat, whose few bad entries nobody here can mend."""
    return (
        read_dialogues(file, split)
        if file
        else read_dialogues(fetch_personachat(), split, tolerate=20)
    )


def _made(folder) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def _show(bar: tqdm, record: dict) -> None:
    bar.total, bar.n = record["steps"], record["step"]
    bar.set_postfix(loss=f"{record['loss']:.3f}", tokens_per_s=f"{record['tokens_per_s']:.0f}")
