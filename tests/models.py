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


def say(model: LocalModel, script: list[str | int]) -> None:
    """Makes the model say exactly this: texts and single ids, one token after the other."""
    ids = [
        i
        for part in script
        for i in ([part] if isinstance(part, int) else model.layout.encode(part))
    ]
    original = model.backend.model.forward
    spoken = iter(ids)

    def forward(**inputs):
        output = original(**inputs)
        output.logits[0, -1] = -30.0
        output.logits[0, -1, next(spoken)] = 30.0
        return output

    model.backend.model.forward = forward
