"""What the chat page and the training share: a persona, the prompt layouts, checkpoints, and reply generation.

Run: `python -m persona_bot` chats in the terminal. Imports go one way:
`persona <- prompt <- checkpoint <- generation`; neither gradio nor `train` is ever imported from here.
"""

import warnings

# Nothing a user can act on. Here, before any thread: a process has one list of filters, and who restores it drops what came meanwhile.
for words in (
    ".*gradient_checkpointing",  # peft asks transformers by an old name
    "torch.quantize_per_tensor",  # quantized tensors and torch.jit will go; the pinned torch has both
    "`torch.jit.script` is deprecated",
):
    warnings.filterwarnings("ignore", message=words)
