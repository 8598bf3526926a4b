"""Tiny checkpoints of the fixtures' modules, and the models that answer with them."""

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.backend import BatchedBackend
from persona_bot.engine.llama import FastLlama
from persona_bot.layouts import find_layout
from persona_bot.replies.local import LocalModel


def checkpoint_of(module, tokenizer, context_length: int = 512) -> Checkpoint:
    return Checkpoint(
        module, tokenizer, find_layout(tokenizer), "tiny", module.device, context_length
    )


def plain_model(module, tokenizer, context_length: int = 512) -> LocalModel:
    """As transformers runs it."""
    return LocalModel.plain(checkpoint_of(module, tokenizer, context_length))


def batched_model(module, tokenizer, context_length: int = 512) -> LocalModel:
    """A Llama whose passes visitors share, in float32."""
    llama = FastLlama(module.config, module.state_dict(), context_length, int8=False)
    return LocalModel.with_backend(
        checkpoint_of(module, tokenizer, context_length), BatchedBackend(llama)
    )
