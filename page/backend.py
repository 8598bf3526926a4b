"""The model behind the page: loaded once, shared by everybody, and one generator that writes a reply with it."""

import os
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import NamedTuple

# on a ZeroGPU Space, and before torch: this package lends a GPU to each call of a decorated
# function
try:
    import spaces
except ImportError:
    spaces = None

import gradio as gr

from page import metrics
from persona_bot import load_model
from persona_bot.device import trim_memory
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.replies.attribution import used_sentences
from persona_bot.replies.reply import Model
from persona_bot.settings import Settings

NOT_BORROWED_TWICE = "Which sentences a reply used is not looked for here: a GPU would have to be borrowed a second time."


class Progress(NamedTuple):
    """A reply while it grows."""

    text: str  # all of it so far
    tokens: int
    seconds: float
    drafts: tuple[str, ...] = ()  # of best-of, the best first


NOTHING = Progress("", 0, 0.0)

# a module's variable, so that ZeroGPU's forked processes find it
model: Model | None = None
# set once it is there, or once it is known that none will come, and why
ready = threading.Event()
failure = ""
# the stop of every reply that is being written, for all visitors
running: set[threading.Event] = set()


def load(name: str | None, device: str | None = None, endpoint: str | None = None) -> None:
    """Loads the model for all that follows, or takes a server's; raises UserError."""
    use(load_model(name, device, endpoint))


def use(loaded_model: Model) -> None:
    """Speaks with this model from now on."""
    global model
    model = loaded_model
    ready.set()


def tidy() -> None:
    """Memory that nobody needs any more goes back to the system."""
    if model is not None:
        model.tidy()
    trim_memory()


def loaded() -> Model:
    """The model that `ready` announced; raises UserError before, and where none will come."""
    if model is None:
        raise UserError(failure or "The model is still loading; try again in a moment.")
    return model


# set once somebody has said that a model will come: app.py while it loads, tests
promised = threading.Event()


def load_unless_promised() -> None:
    """Loads the model that the environment names, else the default, in a thread of its own when the page was opened by other
    means than app.py. Where that fails, the page says why."""
    if promised.is_set() or ready.is_set():
        return
    promised.set()

    def load_default() -> None:
        try:
            load(os.environ.get("MODEL_ID"), None, os.environ.get("MODEL_ENDPOINT"))
        except UserError as error:
            print(error, file=sys.stderr, flush=True)
            give_up(str(error))
        except Exception as error:
            give_up(f"The model failed to load ({type(error).__name__}); the page's log says more.")
            traceback.print_exc()

    threading.Thread(target=load_default, daemon=True).start()


def give_up(sentence: str) -> None:
    """No model will come, for the reason that the sentence tells."""
    global failure
    failure = sentence
    ready.set()


def writes_in_turn() -> bool:
    """Whether replies come one after the other, the slow way, since this model's passes cannot be shared."""
    return not getattr(getattr(model, "backend", None), "is_shared", True)


def state() -> str:
    """ "ready", "loading", "failed" where none will come, or "unreachable" while an endpoint has not answered yet; asks nobody."""
    if not ready.is_set():
        return "loading"
    if model is None:
        return "failed"
    return "unreachable" if loaded().problem else "ready"


def write(
    persona: Persona, turns: list[str], settings: Settings, stop: threading.Event
) -> Iterator[Progress]:
    """The reply as it grows, one state at least; ends at the next token when `stop` is set, or when the caller closes the generator.

    Raises UserError with one sentence, whatever went wrong.
    """
    running.add(stop)
    started, first_text, last, how = time.monotonic(), None, NOTHING, "left"
    try:
        with closing(_write_where_it_runs(persona, turns, settings, stop)) as pieces:
            for last in pieces:
                if first_text is None and last.text:
                    first_text = time.monotonic() - started
                yield last
        if last is NOTHING:  # a borrowed GPU was taken back
            raise UserError("The model gave no reply; try again.")
        how = "stopped" if stop.is_set() else "complete"
    except UserError as error:
        how = "failed"
        if error.__cause__:  # for who runs the page: what it was, without the words of the visitor
            print(f"A reply failed: {type(error.__cause__).__name__}.", flush=True)
        raise
    # the Space's own, when no GPU is free or the visitor's share of it is used up
    except gr.Error as error:
        how = "failed"
        raise UserError(str(error.message)) from error
    # the visitor can do nothing about it but try again; the words stay out of the log
    except Exception as error:
        how = "failed"
        print(f"A reply failed: {type(error).__name__}.", flush=True)
        raise UserError("The model failed during this reply; try again.") from error
    finally:
        stop.set()
        running.discard(stop)
        metrics.reply_ended(metrics.Ended(how, last.tokens, first_text, last.seconds))


def _write_where_it_runs(
    persona: Persona, turns: list[str], settings: Settings, stop: threading.Event
) -> Generator[Progress, None, None]:
    # only what stands on a GPU needs to borrow one
    if _write_on_borrowed_gpu is None or loaded().device_label != "GPU":
        yield from _write(persona, turns, settings, stop)
        return
    for progress in _write_on_borrowed_gpu(persona, turns, settings):
        if isinstance(progress, str):
            raise UserError(progress)
        yield progress
        if stop.is_set():
            return


def _write(
    persona: Persona, turns: list[str], settings: Settings, stop: threading.Event | None = None
) -> Iterator[Progress]:
    # a visitor who leaves ends it at once
    with closing(loaded().reply(persona, turns, settings, stop)) as reply:
        for _ in reply:
            yield Progress(reply.text, reply.num_tokens, reply.seconds)
        yield Progress(reply.text, reply.num_tokens, reply.seconds, tuple(reply.drafts))


def _write_apart(
    persona: Persona, turns: list[str], settings: Settings
) -> Iterator[Progress | str]:
    """`_write` for another process, which no event reaches and from which an error brings only its class: its sentence is yielded."""
    try:
        yield from _write(persona, turns, settings)
    except UserError as error:
        yield str(error)


# seconds; beyond them the Space ends the call
_write_on_borrowed_gpu = spaces.GPU(duration=30)(_write_apart) if spaces else None


def context_usage(
    persona: Persona, turns: list[str], settings: Settings | None = None
) -> tuple[int, int]:
    """(tokens used, tokens there are); (0, 0) while the model is loading, or where only its server can count."""
    return (0, 0) if model is None else model.context_usage(persona, turns, settings)


def used(persona: Persona, turns: list[str], reply: str) -> list[str]:
    """The sentences of the persona that the reply used, the most important first; raises UserError where nobody can tell."""
    if spaces is not None and loaded().device_label == "GPU":
        raise UserError(NOT_BORROWED_TWICE)
    found = used_sentences(loaded(), persona, turns, reply)
    return [persona.sentences[number] for number, _ in found]
