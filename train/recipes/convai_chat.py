"""One reply as simpletransformers' ConvAIModel gives it: its settings, its lower case, its order of turns."""

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.persona import Persona, random_persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import FINISH_WITHIN, Settings

if TYPE_CHECKING:
    from simpletransformers.config.model_args import ConvAIArgs


def some_personality() -> Sequence[str]:
    """Sentences of this repository; no data set is downloaded for them."""
    return random_persona(secrets.randbits(32)).sentences


def answer(
    checkpoint: Checkpoint,
    args: "ConvAIArgs",
    turns: Sequence[str],
    personality: Sequence[str] | None,
) -> str:
    """The reply to the last turn. No personality: one is drawn. Raises UserError where it has no room."""
    # as stock does, and Persona-Chat is
    persona = Persona("", tuple(sentence.lower() for sentence in personality or some_personality()))
    began = [""] if len(turns) % 2 == 0 else []  # the persona did
    settings = Settings(
        temperature=args.temperature if args.do_sample else 0.0,
        top_p=args.top_p or 1.0,
        top_k=args.top_k or 0,
        min_tokens=args.min_length,
        # room to end the sentence instead of breaking off
        max_tokens=args.max_length + FINISH_WITHIN,
        repetition_penalty=1.0,
        guidance_scale=1.0,
        afterthought_penalty=0.0,
        no_repeat_ngram=0,
    )
    return "".join(LocalModel.plain(checkpoint).reply(persona, [*began, *turns], settings))
