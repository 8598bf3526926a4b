"""A model on another machine: any server of the OpenAI protocol that has the published checkpoint, behind the same stream of pieces.

Run: `python app.py --endpoint http://localhost:8000` or `python -m persona_bot --endpoint http://localhost:8000`.

    endpoint = Endpoint("http://localhost:8000")
    for piece in endpoint.reply(persona, ["where do you work?"]):
        print(piece, end="", flush=True)

One background thread reads for all visitors; a stop or the deadline closes the HTTP stream, and the server drops the reply. What
no server of this kind has is left out: `no_repeat_ngram`, and the draw towards a sentence's end.
"""

import asyncio
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import httpx

from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.prompt import settled
from persona_bot.replies.openai_protocol import (
    BROKEN,
    BUSY,
    NOT_ACCEPTED,
    SILENT,
    Chunk,
    base_address,
    chunks,
    failure,
    fields,
    messages,
    sentence,
)
from persona_bot.replies.reply import Pieces, Reply, ends_a_sentence
from persona_bot.settings import Settings

PAUSES = (0.5, 2.0)  # seconds before another try, while no text has come
# seconds of silence; a busy server lets a request wait before its first byte
TIMEOUT = httpx.Timeout(30, connect=5)
ASK_AGAIN = 5.0  # seconds between looks at a server that was down when the page opened


class Endpoint:
    """The server at an address; the contract of its replies is reply.Model's. Raises UserError for an address that is none; whether it answers stands in `problem`."""

    device_label = "another machine"
    at_once = 16

    def __init__(self, url: str, model: str | None = None):
        self.model = model or None  # None until the server has told which it has
        self.problem: str | None = None  # one sentence while the server does not answer
        self.full = True  # whether it takes the fields beyond OpenAI's
        token = os.environ.get("MODEL_ENDPOINT_TOKEN", "").strip()
        if not (token.isascii() and token.isprintable()):
            raise UserError(
                "MODEL_ENDPOINT_TOKEN holds characters that no token has; set it again."
            )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # the page bounds how many replies are written at once
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(
            base_url=base_address(url), headers=headers, timeout=TIMEOUT, limits=limits
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

    def run(self, task):
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

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _write(self, persona, turns, settings, stop, reply: Reply) -> Iterator[str]:
        """The pieces of one reply, as they arrive."""
        started, raw, ended_by, pieces = time.monotonic(), "", None, Pieces()
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        reading = self.run(self.read(persona, turns, settings, arrived.put))
        try:
            while True:
                try:
                    event = arrived.get(timeout=0.05)
                except queue.Empty:
                    # some servers leave the line open after the end
                    event = None if ended_by else ()
                reply.seconds = time.monotonic() - started
                if event is None:
                    break
                if stop.is_set() or reply.seconds > settings.deadline:
                    if not stop.is_set() and not reply.text:
                        raise UserError(sentence(SILENT, self.name))
                    reply.finish_reason = "cancelled" if stop.is_set() else "deadline"
                    return
                if isinstance(event, UserError):
                    raise event
                if not event:
                    yield ""
                    continue
                reply.dropped_turns, chunk = event
                ended_by = chunk.finish or ended_by
                counted = chunk.usage.get("completion_tokens")
                reply.num_tokens = counted or reply.num_tokens + bool(chunk.text)
                reply.prompt_tokens = chunk.usage.get("prompt_tokens") or reply.prompt_tokens
                raw += chunk.text
                if piece := pieces.up_to(ended(raw)):
                    yield piece
                if not ended_by and reply.is_long_enough(settings) and ends_a_sentence(reply.text):
                    reply.finish_reason = "length"
                    return
            reply.finish_reason = "length" if ended_by == "length" else "stop"
            if ended_by == "length" and not ends_a_sentence(reply.text):
                yield "…"
        finally:
            reading.cancel()

    async def find_model(self) -> None:
        """Asks which model the server has, unless one was named; raises UserError while it does not answer."""
        try:
            response = await self.client.get("models", timeout=TIMEOUT.connect)
            status = response.status_code
            if status in (401, 403) or status in BUSY or (status >= 400 and not self.model):
                raise UserError(sentence(status, self.name))
            self.model = self.model or str(response.json()["data"][0]["id"])
        except httpx.RequestError as error:
            raise UserError(sentence(failure(error), self.name)) from error
        except (ValueError, LookupError, TypeError) as error:
            raise UserError("The model's server names no model; name one with --model.") from error
        self.problem = None

    async def _look_again(self) -> None:
        while self.problem:
            await asyncio.sleep(ASK_AGAIN)
            try:
                await self.find_model()
            except UserError as error:
                self.problem = self.problem and str(error)

    async def read(
        self, persona: Persona, turns: Sequence[str], settings: Settings, put: Callable
    ) -> None:
        """Puts (turns dropped, Chunk) for each event, then None; or the UserError that ends the reply."""
        try:
            if not self.model:
                await self.find_model()
            put(await self._read(persona, turns, settings, put))
        except UserError as error:
            put(error)
        except Exception as error:  # its words could hold the conversation
            put(
                UserError(
                    f"The request to the model's server failed ({type(error).__name__}); try again."
                )
            )

    async def _read(self, persona, turns, settings, put) -> UserError | None:
        """The busy are asked again; what is not accepted goes with fewer fields, then with fewer turns, if there are any left."""
        dropped, full = 0, self.full
        while True:
            body = {
                "model": self.model,
                "messages": messages(persona, turns[dropped:]),
                "stream": True,
                **fields(settings, full),
            }
            status = await self._ask(
                body,
                lambda chunk, dropped=dropped, full=full: self._arrived(chunk, dropped, full, put),
            )
            if status == 200:
                return None
            if status not in NOT_ACCEPTED or (not full and dropped + 1 >= len(turns)):
                return UserError(sentence(status, self.name))
            if not full:
                dropped += max(2, (len(turns) - dropped) // 4 * 2)
            full = self.full and not full

    def _arrived(self, chunk: Chunk, dropped: int, full: bool, put: Callable) -> None:
        self.full, self.problem = full, None
        put((dropped, chunk))

    async def _ask(self, body: dict, put: Callable) -> int:
        """One request, repeated after a pause while there is hope and no text yet; 200, or what went wrong."""
        for pause in (*PAUSES, None):
            begun = False
            try:
                async with self.client.stream("POST", "chat/completions", json=body) as response:
                    status = response.status_code
                    if status == 200:
                        async for chunk in chunks(response):
                            begun = begun or bool(chunk.text)
                            put(chunk)
                        return status
            except httpx.RequestError as error:
                status = failure(error)
            # no chunk of this protocol, or no proper end
            except (ValueError, LookupError, TypeError, AttributeError):
                status = BROKEN
            if begun or pause is None or (status > 0 and status not in BUSY):
                return BROKEN if begun else status
            await asyncio.sleep(pause)


def ended(text: str) -> str:
    """Two halves of a character may come in two chunks; what waits for another half or for a word is left out."""
    return settled(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").lstrip())
