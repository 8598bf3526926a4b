"""Untrained GPT-2 and GPT of their own shapes in the convai layout: their speed does not depend on the weights."""

import json
from pathlib import Path
from typing import Any

KINDS = ("gpt2", "openai-gpt")
SPECIAL_TOKENS: dict[str, Any] = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "additional_special_tokens": ["<speaker1>", "<speaker2>"],
}


def make(kind: str, folder: Path) -> Path:
    """A checkpoint as ConvAIModel saves one, with a byte-level tokenizer learnt from the example file."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        OpenAIGPTConfig,
        OpenAIGPTLMHeadModel,
        PreTrainedModel,
        PreTrainedTokenizerFast,
    )

    from benchmarks.training import EXAMPLE

    entries = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    entries = entries["train"] if isinstance(entries, dict) else entries
    texts = [t for e in entries for t in [*e["personality"], *e["utterances"][-1]["history"]]]
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer, learnt.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1_000, special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False
    )
    learnt.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learnt, unk_token="<unk>")
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    torch.manual_seed(0)
    model: PreTrainedModel = (
        GPT2LMHeadModel(GPT2Config(vocab_size=50_262))
        if kind == "gpt2"
        else OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=40_483))
    )
    # as sure of the next word as a trained model, since drawing from a flat distribution costs
    # more; and only of words that the tokenizer has
    rows = model.get_input_embeddings().get_parameter("weight").data
    rows.mul_(8)[len(tokenizer) :] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
