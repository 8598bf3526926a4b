"""What the chat page and the training share: a persona, the prompt layouts, checkpoints, and reply generation.

Run: `python -m persona_bot` chats in the terminal. Imports go one way:
`persona <- prompt <- checkpoint <- generation`; neither gradio nor `train` is ever imported from here.
"""

import warnings

OF_LIBRARIES = (  # warnings that a user can do nothing about
    ".*gradient_checkpointing",  # peft asks transformers by an old name
    # quantized tensors and torch.jit will go; the pinned torch has both
    "torch.quantize_per_tensor",
    "`torch.jit.script` is deprecated",
)


def silence_libraries() -> None:
    for words in OF_LIBRARIES:
        warnings.filterwarnings("ignore", message=words)


# Before any thread: a process has one list of filters, and a library that restores it in one thread
# drops what another has added.
silence_libraries()
