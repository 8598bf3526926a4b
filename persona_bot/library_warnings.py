"""Warnings of libraries that a user can do nothing about, silenced."""

import warnings

OF_LIBRARIES = (
    ".*gradient_checkpointing",  # peft asks transformers by an old name
    # quantized tensors and torch.jit will go; the pinned torch has both
    "torch.quantize_per_tensor",
    "`torch.jit.script` is deprecated",
)


def silence_libraries() -> None:
    for words in OF_LIBRARIES:
        warnings.filterwarnings("ignore", message=words)
