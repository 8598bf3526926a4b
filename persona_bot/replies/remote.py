"""A model on another machine: any server of the OpenAI protocol that has the published checkpoint, behind the same stream of pieces.

Run: `python app.py --endpoint http://localhost:8000` or `python -m persona_bot --endpoint http://localhost:8000`.

    endpoint = Endpoint("http://localhost:8000")
    for piece in RemoteReply(endpoint, persona, ["where do you work?"]):
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

import httpx

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.sampler import FINISH_WITHIN
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.replies.best_of import BestReply
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
from persona_bot.replies.reply import SENTENCE_END, Settings, stream_reply

PAUSES = (0.5, 2.0)  # seconds before another try, while no text has come
# seconds of silence; a busy server lets a request wait before its first byte
TIMEOUT = httpx.Timeout(30, connect=5)
ASK_AGAIN = 5.0  # seconds between looks at a server that was down when the page opened


class Endpoint:
    """The server at an address. Raises UserError for an address that is none; whether it answers stands in `problem`."""

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


def begin_reply(
    model: Endpoint | Checkpoint,
    persona: Persona,
    turns: Sequence[str],
    settings: Settings,
    stop: threading.Event | None = None,
):
    """The reply's stream, wherever the model runs; raises UserError here or while iterating."""
    if settings.best_of == 1:
        return (RemoteReply if isinstance(model, Endpoint) else stream_reply)(
            model, persona, turns, settings, stop
        )
    if isinstance(model, Endpoint):
        raise UserError(
            "The best of several replies needs the model on this machine; set best_of to 1."
        )
    return BestReply(model, persona, turns, settings, stop)


class RemoteReply:
    """A reply that a server writes; iterate it for its pieces. The same attributes as generation.ReplyStream."""

    def __init__(
        self,
        endpoint: Endpoint,
        persona: Persona,
        turns: Sequence[str],
        settings: Settings | None = None,
        stop: threading.Event | None = None,
    ):
        self.text = ""
        self.tokens = 0  # pieces, until the server has counted
        self.seconds = 0.0
        self.first_text_seconds: float | None = None
        self.finish: str | None = None  # "end", "length", "stop" or "deadline"
        self.prompt_tokens = 0  # where the server tells
        self.dropped_turns = 0
        self._pieces = self._run(
            endpoint, persona, list(turns), settings or Settings(), stop or threading.Event()
        )

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """Ends the reply at once; what has arrived stays in `text`."""
        self._pieces.close()

    def _run(self, endpoint, persona, turns, settings, stop) -> Iterator[str]:
        started, raw, ended = time.monotonic(), "", None
        arrived = queue.SimpleQueue()
        reading = endpoint.run(endpoint.read(persona, turns, settings, arrived.put))
        try:
            while True:
                try:
                    event = arrived.get(timeout=0.05)
                except queue.Empty:
                    event = None if ended else ()  # some servers leave the line open after the end
                self.seconds = time.monotonic() - started
                if event is None:
                    break
                if stop.is_set() or self.seconds > settings.deadline:
                    self.finish = "stop" if stop.is_set() else "deadline"
                    if self.finish == "deadline" and not self.text:
                        raise UserError(sentence(SILENT, endpoint.name))
                    return
                if isinstance(event, UserError):
                    raise event
                if not event:
                    continue
                self.dropped_turns, chunk = event
                ended = chunk.finish or ended
                self.tokens = chunk.usage.get("completion_tokens") or self.tokens + bool(chunk.text)
                self.prompt_tokens = chunk.usage.get("prompt_tokens") or self.prompt_tokens
                raw += chunk.text
                if piece := self._new_text(raw):
                    self.first_text_seconds = self.first_text_seconds or self.seconds
                    yield piece
                enough = max(settings.max_tokens - FINISH_WITHIN, settings.min_tokens)
                if not ended and self.tokens > enough and SENTENCE_END.search(self.text):
                    self.finish = "length"
                    return
            self.finish = "length" if ended == "length" else "end"
            if self.finish == "length" and not SENTENCE_END.search(self.text):
                self.text += "…"
                yield "…"
        finally:
            reading.cancel()

    def _new_text(self, raw: str) -> str:
        """What is new to show; half a character, and white space that may turn out to be the last, wait."""
        # two halves may come in two chunks
        whole = raw.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = re.sub("[\\s\ufffd]+$", "", whole.lstrip())
        piece, self.text = text[len(self.text) :], text
        return piece
