"""A model on another machine: any server of the OpenAI protocol that has the published checkpoint, behind the same stream of pieces.

Run: `python app.py --endpoint http://localhost:8000` or `python -m persona_bot --endpoint http://localhost:8000`.

    endpoint = Endpoint("http://localhost:8000")
    for piece in endpoint.reply(persona, ["where do you work?"]):
        print(piece, end="", flush=True)

One background thread reads for all visitors; a stop or the deadline closes the HTTP stream, and the server drops the reply. What
no server of this kind has is left out: `no_repeat_ngram`, `guidance_scale`, `afterthought_penalty`, and the draw towards a sentence's end.
"""

import asyncio
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import httpx

from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.proxies import spare_loopback
from persona_bot.replies.answer_events import blocks, read_json
from persona_bot.replies.endpoint_faults import BUSY, SILENT, STRANGE, failure, sentence
from persona_bot.replies.openai_protocol import MAX_LIST, PLAIN, Shape, base_address, credentials
from persona_bot.replies.reply import Reply, ends_a_sentence
from persona_bot.replies.request import End, Event, converse
from persona_bot.settings import Settings
from persona_bot.thoughts import THINKERS

# seconds of silence; a busy server lets a request wait before its first byte
TIMEOUT = httpx.Timeout(30, connect=5)
TICK = 0.05  # seconds of silence after which a reader looks whether anybody still waits
LISTING = 10.0  # seconds for the whole list of models
ASK_AGAIN = 5.0  # seconds between looks at a server that was down when the page opened


class Endpoint:
    """The server at an address; the contract is reply.Model's. Raises UserError for an address that is none; whether it
    answers stands in `problem`."""

    device_label = "another machine"
    at_once = 16

    def __init__(self, url: str, model: str | None = None):
        self.model = model or None  # None until the server has told which it has
        self.problem: str | None = None  # one sentence while the server does not answer
        self.shape: Shape | None = None  # of a request that it accepted
        self.thinks = False  # before it answers, as far as is known
        self.begins_inside = False  # a thought, whose end alone it marks
        self.is_known = False  # whether it does so; an answer that was cut does not tell
        self.has_answered = False
        token = os.environ.get("MODEL_ENDPOINT_TOKEN", "").strip()
        if not (token.isascii() and token.isprintable()):
            raise UserError(
                "MODEL_ENDPOINT_TOKEN holds characters that no token has; set it again."
            )
        spare_loopback()
        # the page bounds how many replies are written at once
        limits = httpx.Limits(max_connections=None)
        address = base_address(url)
        self.client = httpx.AsyncClient(
            base_url=address.copy_with(query=None),
            params=address.params,
            headers=PLAIN | credentials(address, token),
            timeout=TIMEOUT,
            limits=limits,
        )
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="endpoint", daemon=True).start()
        try:
            self.run(self.find_model()).result()
        except UserError as error:
            self.problem = str(error)
            self.run(self._look_again())

    @property
    def name(self) -> str:
        """What the page shows: the model's name, never a path of the server's machine."""
        return re.sub(r"^(/|[A-Za-z]:\\).*[/\\](?=.)", "", self.model or "a model")

    @property
    def may_begin_inside(self) -> bool:
        """Whether the next answer is held back until the end of a thought, or its own: not the first of most models."""
        in_doubt = self.has_answered or bool(THINKERS.search(self.name))
        return self.begins_inside or (in_doubt and not self.is_known)

    def run(self, task: Coroutine[Any, Any, None]) -> Future[None]:
        """Starts a coroutine in the background; its future can be cancelled, which closes the connection."""
        return asyncio.run_coroutine_threadsafe(task, self.loop)

    def reply(
        self,
        persona: Persona,
        turns: Sequence[str],
        settings: Settings | None = None,
        stop: threading.Event | None = None,
    ) -> Reply:
        settings = settings or Settings()
        if settings.best_of > 1:
            raise UserError(
                "The best of several replies needs the model on this machine; set best_of to 1."
            )
        return Reply(
            partial(self._write, persona, list(turns), settings, stop or threading.Event())
        )

    def score(self, persona: Persona, turns: Sequence[str], replies: Sequence[str]) -> list[float]:
        raise UserError(
            "A server does not tell how likely a reply is; load the model here instead."
        )

    def context_usage(
        self, persona: Persona, turns: Sequence[str], settings: Settings | None = None
    ) -> tuple[int, int]:
        return 0, 0

    def tidy(self) -> None:
        pass  # the server has the memory

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _write(
        self,
        persona: Persona,
        turns: list[str],
        settings: Settings,
        stop: threading.Event,
        reply: Reply,
    ) -> Iterator[str]:
        """The pieces of one reply, as they arrive; an empty one at each TICK of silence."""
        started, ended_by, pieces = time.monotonic(), None, 0
        arrived: queue.SimpleQueue[Event] = queue.SimpleQueue()
        reading = self.run(self._read(persona, turns, settings, arrived.put))
        try:
            while True:
                event = next_of(arrived)
                reply.seconds = time.monotonic() - started
                # some servers leave the line open after the end
                if isinstance(event, End) or (event is None and ended_by):
                    break
                if stop.is_set() or reply.seconds > settings.deadline:
                    if not stop.is_set() and not reply.text:
                        raise UserError(sentence(SILENT, self.name))
                    reply.finish_reason = "cancelled" if stop.is_set() else "deadline"
                    return
                if isinstance(event, UserError):
                    raise event
                if event is None:
                    yield ""
                    continue
                pieces += bool(event.piece)
                # a server that goes on beyond what was asked for (one that sends letter by letter
                # may send more pieces)
                if pieces > settings.max_tokens < len(reply.text + event.piece):
                    ended_by = "length"
                    break
                ended_by = event.chunk.finish or ended_by
                reply.dropped_turns = event.dropped_turns
                # until it has ended, what a server counts may be its thought
                counted = event.chunk.usage if ended_by else {}
                reply.num_tokens = counted.get("completion_tokens", pieces)
                reply.prompt_tokens = event.chunk.usage.get("prompt_tokens", reply.prompt_tokens)
                if event.piece:
                    yield event.piece
                if not ended_by and reply.is_long_enough(settings) and ends_a_sentence(reply.text):
                    reply.finish_reason = "length"
                    return
            if isinstance(event, End) and event.rest:
                yield event.rest
            reply.finish_reason = "length" if ended_by == "length" else "stop"
            if ended_by == "length" and not ends_a_sentence(reply.text):
                yield "…"
        finally:
            reading.cancel()

    def accepted(self, shape: Shape) -> None:
        """A request of this shape is being answered."""
        self.shape, self.problem = shape, None

    async def find_model(self) -> None:
        """Asks which model the server has, unless one was named; raises UserError while it does not answer."""
        try:
            status, data = await asyncio.wait_for(self._list(), LISTING)
            moved = 300 <= status < 400
            if moved or status in (401, 403, *BUSY) or (status >= 400 and not self.model):
                raise UserError(sentence(status, self.name))
            if data.lstrip().startswith(b"<"):  # a page
                raise UserError(sentence(STRANGE, self.name))
            self.model = self.model or str(read_json(data)["data"][0]["id"])[:200]
        except httpx.RequestError as error:
            raise UserError(sentence(failure(error), self.name)) from error
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise UserError(sentence(SILENT, self.name)) from error
        except (ValueError, LookupError, TypeError) as error:
            raise UserError("The model's server names no model; name one with --model.") from error
        self.problem = None

    async def _list(self) -> tuple[int, bytes]:
        async with self.client.stream("GET", "models", timeout=TIMEOUT.connect) as response:
            if response.status_code >= 300 or self.model:
                return response.status_code, b""
            data = [block async for block in blocks(response, MAX_LIST)]
            return response.status_code, b"".join(data)

    async def _look_again(self) -> None:
        while self.problem:
            await asyncio.sleep(ASK_AGAIN)
            try:
                await self.find_model()
            except UserError as error:
                self.problem = self.problem and str(error)

    async def _read(
        self,
        persona: Persona,
        turns: Sequence[str],
        settings: Settings,
        put: Callable[[Event], None],
    ) -> None:
        """Puts an Arrived for each event, then End; or the UserError that ends the reply."""
        try:
            if not self.model:
                await self.find_model()
            put(await converse(self, persona, turns, settings, put))
        except UserError as error:
            put(error)
        except Exception as error:  # its words could hold the conversation
            put(
                UserError(
                    f"The request to the model's server failed ({type(error).__name__}); try again."
                )
            )


def next_of(arrived: queue.SimpleQueue[Event]) -> Event | None:
    """The next event, or None after a TICK of silence."""
    try:
        return arrived.get(timeout=TICK)
    except queue.Empty:
        return None
