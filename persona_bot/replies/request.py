"""One question to a server, asked again and in other ways while that may help, and its answer as it comes."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import httpx

from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE
from persona_bot.persona import Persona
from persona_bot.replies.answer_events import MAX_LINE, Chunk, blocks, chunks, retry_after
from persona_bot.replies.endpoint_faults import (
    AGAIN,
    BROKEN,
    BROKEN_EARLY,
    EMPTY,
    NOT_ACCEPTED,
    STRANGE,
    THINKING,
    WITHHELD,
    ReportedError,
    failure,
    sentence,
    told_status,
)
from persona_bot.replies.openai_protocol import (
    AROUND,
    PER_TOKEN,
    SHAPES,
    THOUGHT_TOKENS,
    Shape,
    fields,
    messages,
)
from persona_bot.replies.visible_text import VisibleText
from persona_bot.settings import Settings
from persona_bot.thoughts import THINKERS

if TYPE_CHECKING:
    from persona_bot.replies.remote import Endpoint

SEED = re.compile(r"\bseed\b")
PAUSES = (0.5, 2.0)  # seconds before another try, while no text has come


class Arrived(NamedTuple):
    """An event of the stream."""

    dropped_turns: int
    piece: str  # what it adds to what is shown
    chunk: Chunk


class End(NamedTuple):
    """The answer has come to its end."""

    rest: str  # what was held back


Event = Arrived | End | UserError  # the last ends the reply


class Answer:
    """What has come of one answer; hands it on."""

    def __init__(
        self, put: Callable[[Event], None], dropped_turns: int, server: "Endpoint", shape: Shape
    ):
        self._put, self._dropped_turns = put, dropped_turns
        self._server, self._shape = server, shape
        self.rest = ""  # what was held back to the end
        self.told = ""  # with what words it was refused
        self.has_room = False  # for a thought before the answer
        self.begin()

    def begin(self) -> None:
        self.begun = self._thought = self._refused = False
        self._finish: str | None = None
        self.shown = VisibleText(self._server.may_begin_inside)

    def add(self, chunk: Chunk) -> None:
        server = self._server
        server.accepted(self._shape)
        if chunk.thought and not (
            server.is_known or self.begun
        ):  # it keeps thoughts out of the text
            server.is_known, self.shown = True, VisibleText()
        piece = self.shown.add(chunk.text)
        if self.shown.began_inside:
            server.begins_inside = server.is_known = True
        self.begun = self.begun or bool(piece)
        server.has_answered |= self.begun
        self._thought = self._thought or chunk.thought or self.shown.thought
        self._refused = self._refused or chunk.refused
        self._finish = chunk.finish or self._finish
        # an answer without text is not over: the server may be asked again
        if self.begun or not chunk.finish:
            self._put(Arrived(self._dropped_turns, piece, chunk))

    @property
    def is_empty(self) -> bool:
        """It is complete, and nothing was shown."""
        return bool(self._finish) and not self.begun

    def end(self) -> int:
        """200, or why there is no text."""
        server, is_whole = self._server, self._finish != "length"
        # what has no end even with room for a thought is none, unless the model's name says that it thinks
        in_doubt = not server.is_known and not THINKERS.search(server.name)
        if is_whole or (self.has_room and in_doubt):
            for piece in self.shown.guessed():
                self.begun = True
                self._put(Arrived(self._dropped_turns, piece, Chunk(piece)))
            server.is_known |= self.begun
        self.rest = self.shown.end()
        if self.begun or self.rest:
            return 200
        if self._refused:
            return WITHHELD
        # a server may hide the thought that took all the room
        return THINKING if self._thought or not is_whole else EMPTY


async def converse(
    server: "Endpoint",
    persona: Persona,
    turns: Sequence[str],
    settings: Settings,
    put: Callable[[Event], None],
) -> UserError | End:
    """Asks a remote.Endpoint. What it does not accept goes in other shapes, until it has accepted one; then with fewer
    turns, if any are left."""
    until, dropped = time.monotonic() + settings.deadline, 0
    shapes = [server.shape] if server.shape else list(SHAPES)
    if server.shape and turns[0] == SILENCE:
        # nothing was said before a greeting, and not every server takes a message without words
        shapes.append(server.shape._replace(system_turn=False))
    while True:
        shape = shapes[0]
        answer = Answer(put, dropped, server, shape)
        status = THINKING
        while status == THINKING:
            thinks = answer.has_room = server.thinks
            limit = settings.max_tokens + THOUGHT_TOKENS * thinks
            body = {
                "model": server.model,
                "messages": messages(persona, turns[dropped:], shape.system_turn),
                "stream": True,
                **fields(settings, shape.fields, limit),
            }
            if not shape.seed:
                body.pop("seed", None)
            status = await ask(server.client, body, answer, PER_TOKEN * limit + AROUND, until)
            if status == THINKING:
                server.thinks = True  # from now on it may think on top of what it says
            if thinks:
                break
        if status == 200:
            return End(answer.rest)
        if status not in NOT_ACCEPTED:
            return UserError(sentence(status, server.name))
        new = shape._replace(fields="new")
        if "seed" in body and SEED.search(answer.told):
            shapes = [other._replace(seed=False) for other in shapes]
        elif "max_completion_tokens" in answer.told and new in shapes[1:]:
            shapes = [new, *(other for other in shapes[1:] if other != new)]
        elif len(shapes) > 1:
            shapes = shapes[1:]
        elif dropped + 1 < len(turns):
            shapes = [server.shape or SHAPES[1]]
            dropped += max(2, (len(turns) - dropped) // 4 * 2)
        else:
            return UserError(sentence(status, server.name))


async def ask(
    client: httpx.AsyncClient, body: dict, answer: Answer, max_bytes: int, until: float
) -> int:
    """One request, repeated after a pause while there is hope, time, and no text yet; 200, or what went wrong."""
    for pause in (*PAUSES, None):
        answer.begin()
        wanted, kind = 0.0, ""
        try:
            async with client.stream("POST", "chat/completions", json=body) as response:
                status, wanted = response.status_code, retry_after(response)
                if status == 200:
                    kind = response.headers.get("content-type", "event-stream")
                    async for chunk in chunks(response, max_bytes):
                        answer.add(chunk)
                        if answer.is_empty:  # some servers leave the line open after the end
                            break
                    return answer.end()
                if status in (*NOT_ACCEPTED, 500):
                    answer.told = await first_block(response)
                    status = told_status(status, answer.told)
        except httpx.RequestError as error:
            status = failure(error)
        except ReportedError as error:
            status = error.status
        # no chunk of this protocol, or no proper end
        except (ValueError, LookupError, TypeError, AttributeError):
            status = BROKEN_EARLY if "event-stream" in kind else STRANGE
        if answer.begun or pause is None or status not in AGAIN:
            return BROKEN if answer.begun else status
        pause = max(pause, wanted)
        if time.monotonic() + pause > until:
            return status
        await asyncio.sleep(pause)
    raise AssertionError("the last pause is None")


async def first_block(response: httpx.Response) -> str:
    """The beginning of a refusal, which is looked through and never shown."""
    async for block in blocks(response, MAX_LINE):
        return block.decode("utf-8", "replace")
    return ""
