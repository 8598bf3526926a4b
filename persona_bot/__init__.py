"""What the chat page and the training share: a persona, the prompt layouts, checkpoints, and replies. The front door:

    from persona_bot import Settings, load_model
    from persona_bot.persona import find_persona

    model = load_model()                                    # default_model/; a folder, USER/NAME[@REVISION] or endpoint=URL
    reply = model.reply(find_persona("soldier", 1), ["hello! where do you work?"], Settings(seed=1))
    for piece in reply:
        print(piece, end="", flush=True)
    print(reply.finish_reason, reply.num_tokens, reply.tokens_per_second)

`python -m persona_bot` does this in a terminal. What a model and a reply have stands in replies/reply.py, what can be set in
settings.py. Importing this package loads neither torch nor transformers; neither gradio nor `train` is ever imported from it.
"""

from typing import TYPE_CHECKING

from persona_bot.errors import UserError
from persona_bot.library_warnings import silence_libraries
from persona_bot.settings import Settings

if TYPE_CHECKING:
    from persona_bot.replies.reply import Model

__all__ = ["Settings", "UserError", "load_model"]


def load_model(
    name: str | None = None, device: str | None = None, endpoint: str | None = None
) -> "Model":
    """A model that is ready to reply: a checkpoint on this machine, or with `endpoint` the one that a server has.

    `name`: Hub repository[@revision] or folder, or what the server calls its model; None: the default, or the server's first.
    Raises UserError; a server that does not answer yet raises nothing here, and says so in `problem`.
    """
    if endpoint:
        from persona_bot.replies.remote import Endpoint

        return Endpoint(endpoint, name)
    from persona_bot.replies.local import LocalModel

    return LocalModel.load(name, device)


# Before any thread: a process has one list of filters, and a library that restores it in one thread
# drops what another has added.
silence_libraries()
