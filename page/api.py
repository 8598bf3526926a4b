"""The endpoint for programs: persona and turns as plain texts in, the growing reply out."""

import threading
import time

import gradio as gr

from page import backend
from page.events import frame_seconds
from persona_bot.errors import UserError
from persona_bot.persona import check_message, parse_persona
from persona_bot.settings import API_FIELDS, Settings

MAX_TURNS = 199
DEFAULTS = Settings()


def answer(  # type: ignore[misc]  # a generator, whose values gr.api documents
    persona: list[str],
    turns: list[str],
    temperature: float = DEFAULTS.temperature,
    top_p: float = DEFAULTS.top_p,
    top_k: int = DEFAULTS.top_k,
    min_tokens: int = DEFAULTS.min_tokens,
    max_tokens: int = DEFAULTS.max_tokens,
    repetition_penalty: float = DEFAULTS.repetition_penalty,
    seed: int | None = None,
    best_of: int = DEFAULTS.best_of,
) -> str:  # of one streamed value; gr.api documents it
    """Streams the persona's reply as it grows. `persona` holds one sentence an item; `turns` alternate, yours first and last.

    The same seed gives the same reply while nobody else is answered; beside others, whose words share its passes, rounding
    may now and then choose another word.
    """
    chosen = locals()
    try:
        lists_of_text = all(
            isinstance(texts, list) and all(isinstance(text, str) for text in texts)
            for texts in (persona, turns)
        )
        if not lists_of_text or len(turns) % 2 == 0 or len(turns) > MAX_TURNS:
            raise UserError(
                f"Send the persona as a list of sentences, and turns as a list of texts, an odd number, at most {MAX_TURNS}."
            )
        for turn in turns:
            check_message(turn)
        who = parse_persona("\n".join(persona))
        settings = Settings(**{name: chosen[name] for name in API_FIELDS})
        if not backend.ready.is_set():
            raise UserError("The model is still loading; try again in a moment.")
        # Gradio can cancel a job from its first value on; without this one who left early would be written for in vain
        yield ""
        shown = 0.0
        for progress in backend.write(who, turns, settings, threading.Event()):
            if time.monotonic() - shown >= frame_seconds():
                yield progress.text
                shown = time.monotonic()
        yield progress.text
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
