"""What the tests of recipe sft share: tiny models, four conversations, settings that train in a second."""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from persona_bot.layouts import find_layout
from persona_bot.persona import Persona
from train.data.examples import IGNORED, Example, conversation_example
from train.recipes.base_model import save_trained
from train.recipes.sft import train_sft
from train.recipes.sft_settings import SftSettings
from train.run.log import read_log

PERSONA = Persona("", ("i keep bees.",))
CHATS = [
    ["hi.", "hello you!"],
    ["who?", "a beekeeper.", "where?", "up on the roof, all day."],
    ["ok.", "no."],
    ["bye.", "see you soon, my friend."],
]


def settings(**changes) -> SftSettings:
    """Every weight, float32, one row a step, no validation before the end."""
    tiny = {
        "epochs": 3,
        "learning_rate": 1e-2,
        "row_length": 256,
        "accumulate": 1,
        "lora_rank": 0,
        "bf16": False,
        "save_every": 100,
    }
    return SftSettings(**{**tiny, "warmup": 0.0, **changes})


def gpt2(tokenizer, **changes) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=2, n_head=2)
    config.update(changes)
    return GPT2LMHeadModel(config).eval()


def examples_of(tokenizer) -> list[Example]:
    layout = find_layout(tokenizer, max_turns=500)
    return [conversation_example(layout, PERSONA, turns) for turns in CHATS]


RUN = settings(epochs=6, row_length=80, save_every=3, warmup=0.1)
STEPS = 12  # of RUN on these examples


def train_and_save(tokenizer, out: Path, resume: bool = True) -> None:
    """Trains a GPT-2 with dropout as RUN says and saves it as train.finetune does, or goes on with what is there."""
    examples = examples_of(tokenizer)
    model = gpt2(tokenizer)
    trainer, _ = train_sft(model, examples, examples[:2], out, RUN, resume)
    assert trainer.stopped_by is None
    save_trained(model, tokenizer, find_layout(tokenizer, max_turns=500), "gpt2", out)


def train_uninterrupted(tokenizer, out: Path) -> Path:
    """`out` after a run that took every step of RUN once."""
    train_and_save(tokenizer, out, resume=False)
    steps = [line["step"] for line in read_log(out) if "loss" in line]
    assert steps == list(range(1, STEPS + 1))
    return out


def digest(model) -> str:
    return hashlib.sha256(
        b"".join(p.detach().numpy().tobytes() for p in model.state_dict().values())
    ).hexdigest()


def plain_nats(model, example: Example) -> torch.Tensor:
    """Cross-entropy of one example on its own, from all its logits."""
    types = (
        {}
        if example.token_types is None
        else {"token_type_ids": torch.tensor([example.token_types])}
    )
    logits = model(torch.tensor([example.ids]), **types).logits[0]
    return F.cross_entropy(
        logits, torch.tensor(example.targets), ignore_index=IGNORED, reduction="sum"
    )
