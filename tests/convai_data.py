"""Tiny GPT and GPT-2 bases, dialogues, and stock ConvAIModel itself: what the tests of train/convai*.py share."""

import json
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GPT2Config,
    GPT2DoubleHeadsModel,
    OpenAIGPTConfig,
    OpenAIGPTDoubleHeadsModel,
    OpenAIGPTTokenizer,
    TrainerCallback,
)

PERSONAS = [
    ("i keep bees .", "i am afraid of heights ."),
    ("i sail .",),
    ("i cook .", "i hate rain .", "i am ten ."),
    ("my dog is old .",),
]
WORDS = (
    "hello you are me dog bee sea rain cook like hate old what do where yes no ? . ! the a".split()
)
QUIET = {
    "silent": True,
    "overwrite_output_dir": True,
    "num_train_epochs": 1,
    "save_model_every_epoch": False,
    "manual_seed": 3,
}
STOCK = {
    **QUIET,
    "no_cache": True,
    "process_count": 1,
    "use_multiprocessing": False,
    "save_steps": -1,
}


def entries(candidates: int, seed: int = 0) -> list[dict]:
    """Four dialogues of one to four replies, ten in all; the second begins with the persona."""
    rng = torch.Generator().manual_seed(seed)

    def say() -> str:
        length = int(torch.randint(2, 9, (), generator=rng))
        return " ".join(WORDS[k] for k in torch.randint(len(WORDS), (length,), generator=rng))

    result = []
    for number, persona in enumerate(PERSONAS):
        turns, utterances = ["__SILENCE__" if number == 1 else say()], []
        for _ in range(number + 1):
            gold = say()
            utterances.append(
                {
                    "history": list(turns),
                    "candidates": [*(say() for _ in range(candidates - 1)), gold],
                }
            )
            turns += [gold, say()]
        result.append({"personality": list(persona), "utterances": utterances})
    return result


def write(folder: Path, content, name: str = "data.json") -> Path:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / name


def make_bases(folder: Path, dropout: float = 0.0) -> dict[str, Path]:
    """An untrained GPT and an untrained GPT-2 without the five tokens, each in a folder."""
    torch.manual_seed(1)
    size = {"n_positions": 320, "n_embd": 16, "n_layer": 2, "n_head": 2, "num_labels": 1}
    size |= {
        "attn_pdrop": dropout,
        "embd_pdrop": dropout,
        "resid_pdrop": dropout,
        "summary_first_dropout": dropout,
    }
    (folder / "gpt2").mkdir()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        [" ".join(WORDS)] * 9, vocab_size=320, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.save_model(str(folder / "gpt2"))
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), bos_token_id=0, eos_token_id=0, **size
    )
    GPT2DoubleHeadsModel(config).save_pretrained(folder / "gpt2")
    letters = "".join(sorted(set("".join(WORDS) + "".join(map("".join, PERSONAS)) + "_")))
    words = ["<unk>", *letters, *(f"{letter}</w>" for letter in letters)]
    OpenAIGPTTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[]).save_pretrained(
        folder / "gpt"
    )
    OpenAIGPTDoubleHeadsModel(OpenAIGPTConfig(vocab_size=len(words), **size)).save_pretrained(
        folder / "gpt"
    )
    return {"gpt": folder / "gpt", "gpt2": folder / "gpt2"}


def stock_dataset(tokenizer, path, *_, **__):
    """What stock's own get_dataset returns for a local file: every text as ids."""

    def tokenize(value):
        if isinstance(value, str):
            return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(value))
        return (
            {k: tokenize(v) for k, v in value.items()}
            if isinstance(value, dict)
            else [tokenize(v) for v in value]
        )

    return tokenize(json.loads(Path(path).read_text(encoding="utf-8")))


class Watch(TrainerCallback):
    """Notes every line that a training logs, `steps` and `evaluations` apart, and saves and stops it after a step."""

    def __init__(self, stop_after: int | None = None):
        self.steps: list[dict] = []
        self.evaluations: list[dict] = []
        self.stop_after = stop_after

    def on_step_end(self, args, state, control, **_):
        if self.stop_after is not None and state.global_step >= self.stop_after:
            control.should_save = control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **_):
        for kind, lines in (("loss", self.steps), ("eval_loss", self.evaluations)):
            if kind in logs:
                lines.append({**logs, "step": state.global_step})
