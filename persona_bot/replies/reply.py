"""A reply while it is written, and what writes it: the two types that page, API, terminal and evaluation know.

model = load_model()
reply = model.reply(persona, ["where do you work?"], Settings(seed=1))
for piece in reply:
    print(piece, end="", flush=True)
"""

import os
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from persona_bot.persona import Persona
from persona_bot.settings import FINISH_WITHIN, Settings

SENTENCE_END = re.compile(r"[.!?…。！？][\"')\]]*$")


class Reply:
    """A reply in the making, whoever writes it; iterate it for its pieces. Its counters are true at every moment.

    Pieces joined are `text`, exactly. An empty piece says that nothing has come yet: a look at whether anybody still waits.
    """

    def __init__(
        self,
        write: Callable[["Reply"], Iterator[str]],
        prompt_tokens: int = 0,
        dropped_turns: int = 0,
    ):
        """`write(reply)` yields the pieces, keeps the counters and sets `finish_reason`."""
        self.text = ""
        self.num_tokens = 0
        self.prompt_tokens = prompt_tokens  # 0 where only a server could tell and did not
        self.dropped_turns = dropped_turns  # of the oldest, which did not fit
        self.seconds = 0.0  # of writing
        self.first_text_seconds: float | None = None
        # "stop": the model ended it; "length": max_tokens, at a sentence's end if there was one near;
        # "cancelled": by the stop event or close(); "deadline"; None while it grows and after an error
        self.finish_reason: str | None = None
        self.drafts: list[str] = []  # of a best-of reply: the texts, best first
        self._pieces = self._run(write)

    @property
    def tokens_per_second(self) -> float | None:
        return self.num_tokens / self.seconds if self.num_tokens and self.seconds else None

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """Ends the reply at once, without waiting for anything; what was written stays in `text`."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"
        self._pieces.close()

    def _run(self, write: Callable[["Reply"], Iterator[str]]) -> Generator[str, None, None]:
        for piece in write(self):
            if piece:
                self.text += piece
                self.first_text_seconds = self.first_text_seconds or self.seconds
            yield piece

    def is_long_enough(self, settings: Settings) -> bool:
        """Whether it may end with its sentence, because it could not finish another one."""
        return self.num_tokens > max(settings.max_tokens - FINISH_WITHIN, settings.min_tokens)


def ends_a_sentence(text: str) -> bool:
    return bool(SENTENCE_END.search(text[-8:]))


class Pieces:
    """Cuts a text that is decoded anew after each token into pieces; none is lost where a decoder rewrites what stood before."""

    def __init__(self) -> None:
        self._last = ""

    def up_to(self, text: str) -> str:
        """What is new in the text since the last call."""
        common = len(os.path.commonprefix([self._last, text]))
        self._last, piece = text, text[common:]
        return piece


class Model(Protocol):
    """What answers, on this machine (local.LocalModel) or on another (remote.Endpoint); only what looks into weights asks which."""

    @property
    def name(self) -> str:
        """What the page shows."""

    @property
    def device_label(self) -> str:
        """ "CPU", "GPU" or "another machine"."""

    @property
    def problem(self) -> str | None:
        """One sentence while it cannot answer."""

    @property
    def at_once(self) -> int:
        """Replies that are worth writing at the same time."""

    def reply(
        self,
        persona: Persona,
        turns: Sequence[str],
        settings: Settings | None = None,
        stop: threading.Event | None = None,
    ) -> Reply:
        """The persona's next reply to `turns`, the last of which is the partner's; `stop` ends it, from any thread.

        Raises UserError, here or while it is iterated.
        """

    def score(self, persona: Persona, turns: Sequence[str], replies: Sequence[str]) -> list[float]:
        """Log likelihood of each reply to `turns`, its end token included; raises UserError where only a server could tell."""

    def context_usage(
        self, persona: Persona, turns: Sequence[str], settings: Settings | None = None
    ) -> tuple[int, int]:
        """(tokens that persona and turns take, tokens that there is room for); (0, 0) where only a server could tell."""

    def tidy(self) -> None:
        """Gives back the memory that nobody needs any more; to be called now and then, beside whatever else it does."""

    def close(self) -> None:
        """Gives back what it holds: memory, threads, connections."""
