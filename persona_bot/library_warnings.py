"""Warnings of libraries that a user can do nothing about, silenced."""

import warnings

OF_LIBRARIES = (
    # peft, of one side of tied embeddings, which are untied before anything is folded in
    "Model has `tie_word_embeddings=True`",
    ".*gradient_checkpointing",  # peft asks transformers by an old name
    # quantized tensors and torch.jit will go; the pinned torch has both
    "torch.quantize_per_tensor",
    "`torch.jit.script` is deprecated",
)


def silence_libraries() -> None:
    for words in OF_LIBRARIES:
        warnings.filterwarnings("ignore", message=words)
