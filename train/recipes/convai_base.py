"""What ConvAIModel stands on: stock's own class, loaded from the checkpoints and tokenizers that it can begin from."""

import copy
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from persona_bot.checkpoints.files import check_files, save_layout, save_tokenizer
from persona_bot.checkpoints.load import Checkpoint, explained, find_folder, load_tokenizer
from persona_bot.device import pick_device
from persona_bot.errors import UserError
from persona_bot.layouts import ConvaiLayout
from train.data.dialogues import Dialogue
from train.recipes.convai_settings import ConvAIArgs, as_dict, tell_without_effect

# simpletransformers.conv_ai.conv_ai_utils imports a function that transformers 4.22 dropped, so the
# package cannot be imported as it is. Its model takes one thing from there, the reader of the pickled
# caches, which nothing calls here.
_utils = types.ModuleType("simpletransformers.conv_ai.conv_ai_utils")
vars(_utils)["get_dataset"] = None
sys.modules.setdefault(_utils.__name__, _utils)

from simpletransformers.conv_ai import ConvAIModel as StockConvAIModel  # noqa: E402, F401
from simpletransformers.conv_ai.conv_ai_model import ATTR_TO_SPECIAL_TOKEN  # noqa: E402, F401

GPT_TOKENIZERS = (
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "OpenAIGPTTokenizer",
    "OpenAIGPTTokenizerFast",
)
PROBE = (
    "i keep bees. 벌을 키워요."  # read otherwise by GPT's own way of splitting than by another's
)
CHECKED = 100  # dialogues whose encoding is checked
MODEL_TYPES = {"openai-gpt": "gpt", "gpt2": "gpt2"}  # transformers' name -> simpletransformers'


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


def own_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that was read as GPT's; or the folder's, where that is another kind, or was made to split in another way."""
    folder = Path(tokenizer.name_or_path)
    if folder_class(str(folder)) not in GPT_TOKENIZERS:
        return load_tokenizer(folder, folder)
    if not (folder / "tokenizer.json").exists():
        return tokenizer
    own = PreTrainedTokenizerFast.from_pretrained(folder)
    same = own.tokenize(PROBE) == tokenizer.tokenize(PROBE)
    return tokenizer if same else own


class LoadedModel(StockConvAIModel):
    """Stock's class from a folder or the Hub to a folder again; convai.py trains it."""

    model: Any  # stock's, with double heads
    tokenizer: PreTrainedTokenizerBase
    args: ConvAIArgs

    def __init__(
        self,
        model_type: str,
        model_name: str,
        args: dict | ConvAIArgs | None = None,
        use_cuda: bool | None = None,
        cuda_device: int = -1,
        **options: object,
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
        if options:
            raise UserError(
                f"ConvAIModel takes no {', '.join(options)} here; leave it out (HF_HOME names another cache folder)."
            )
        folder = find_folder(model_name)
        check_files(folder)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        settings = {"manual_seed": 0, "output_dir": "outputs", **as_dict(args)}
        tell_without_effect(settings)
        # the new embeddings and the ranking head begin at random
        torch.manual_seed(settings["manual_seed"] or 0)
        with explained(model_name, f"{model_type} model", "name another checkpoint"):
            super().__init__(
                model_type,
                str(folder),
                settings,
                torch.cuda.is_available() if use_cuda is None else use_cuda,
                cuda_device,
            )
        self.name = self.args.model_name = (
            Path(model_name).name if os.path.exists(model_name) else model_name
        )
        self.model = self.model.float().eval()
        if use_cuda is None and not torch.cuda.is_available():
            self.device = pick_device()

    def add_special_tokens_(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Adds the five tokens, and embeddings for them, to the folder's own kind of tokenizer.

        Stock takes GPT's whatever the folder says, and asks for `tokenizer.encoder`, which transformers 5 has not.
        """
        tokenizer = self.tokenizer = own_tokenizer(tokenizer)
        tokenizer.add_special_tokens(ATTR_TO_SPECIAL_TOKEN)
        if model.get_input_embeddings().num_embeddings < len(tokenizer):
            model.resize_token_embeddings(len(tokenizer))

    @property
    def layout(self) -> ConvaiLayout:
        return ConvaiLayout(self.tokenizer, 2 * self.args.max_history + 1)

    @property
    def checkpoint(self) -> Checkpoint:
        """The model as the chat and the scores know one; without dropout."""
        self._move_model_to_device()
        return Checkpoint(
            self.model.eval(),
            self.tokenizer,
            self.layout,
            self.name,
            torch.device(self.device),
            self.model.config.max_position_embeddings,
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
