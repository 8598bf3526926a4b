"""What OpenAI-compatible servers understand: the conversation as messages, the settings as fields, the answer as events.

A server is a stranger: how many bytes are read is bounded by what was asked for, lines by their length, JSON by its depth.
(huggingface_hub's client reads lines of any length and answers of any size, which is why this is not it.)
"""

import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE, system_text
from persona_bot.persona import Persona
from persona_bot.settings import Settings
from persona_bot.text import tidy

BUSY = (429, 502, 503, 504)
# a field that the server does not know, or more turns than its model takes
NOT_ACCEPTED = (400, 413, 422)
UNREACHABLE, SILENT, BROKEN, THINKING = -1, -2, -3, -4  # beside HTTP's statuses
# how chat templates begin their control tokens
CONTROL = re.compile(r"<(?=[|｜/a-zA-Z_])|\[(?=/?[A-Z_]{4,}\])")


MAX_LINE = 64 << 10  # bytes of one event
MAX_LIST = 4 << 20  # bytes of a list of models
# bytes of a whole answer: so many for each token that was asked for, and some for what stands around
PER_TOKEN, AROUND = 4 << 10, 256 << 10
# what a server that thinks before it answers may spend on that, in tokens
THOUGHT_TOKENS = 1024
PLAIN = {"Accept-Encoding": "identity"}  # a packed answer could unpack to any size


class Shape(NamedTuple):
    """How a request is written: servers know more or fewer fields, and some models have no system turn."""

    fields: str  # "full", "basic", or "new" (OpenAI's for models that think)
    system_turn: bool


# in the order in which they are tried on a server that has accepted none yet
SHAPES = [
    Shape("full", True),
    Shape("basic", True),
    Shape("new", True),
    Shape("basic", False),
    Shape("new", False),
]


class Chunk(NamedTuple):
    """One event of the stream, `data: {"choices": [{"delta": {"content": " hi"}, "finish_reason": null}]}` and the like."""

    text: str
    thought: bool  # it holds what the model thinks, in a field of its own
    finish: str | None  # "stop" or "length" on the last one with a choice
    usage: dict[str, int]  # prompt_tokens and completion_tokens, where the server counts them


def base_address(url: str) -> httpx.URL:
    """http://host:8000, with or without a slash, /v1 or the whole route -> http://host:8000/v1; raises UserError."""
    try:
        address = httpx.URL(url.strip())
        if (
            address.scheme not in ("http", "https")
            or not address.host
            or address.query
            or address.fragment
            or (address.port or 1) > 65535
        ):
            raise ValueError("no address of a server")
    # the words stay out: an address may hold a password
    except (httpx.InvalidURL, ValueError) as error:
        raise UserError(
            "--endpoint (or MODEL_ENDPOINT) is no address of a server; write one like http://localhost:8000."
        ) from error
    path = address.path.rstrip("/").removesuffix("/chat/completions")
    return address.copy_with(path=path if re.search(r"/v\d[^/]*(/|$)", path) else f"{path}/v1")


def messages(persona: Persona, turns: Sequence[str], system_turn: bool = True) -> list[dict]:
    """The conversation as ChatLayout has it, the persona in the system turn, else at the head of the partner's first;
    what looks like a control token is broken up."""
    texts = [system_text(persona), *(tidy(turn) if turn != SILENCE else "" for turn in turns)]
    roles = ["system", *("assistant" if k % 2 else "user" for k in range(len(turns)))]
    if not system_turn:
        texts, roles = [f"{texts[0]}\n\n{texts[1]}", *texts[2:]], roles[1:]
    clean = [CONTROL.sub(r"\g<0> ", text).encode("utf-8", "replace").decode() for text in texts]
    return [{"role": role, "content": text} for role, text in zip(roles, clean, strict=True)]


def fields(settings: Settings, kind: str, max_tokens: int) -> dict[str, Any]:
    """The settings in OpenAI's names; "full" adds what vLLM, llama.cpp and others know, each by its own name, and only if
    it is on."""
    seed = {} if settings.seed is None else {"seed": settings.seed}
    if kind == "new":
        return {"max_completion_tokens": max_tokens, **seed}
    # TGI refuses a top_p of 1
    basic = {
        "temperature": settings.temperature,
        "top_p": min(settings.top_p, 0.999),
        "max_tokens": max_tokens,
        **seed,
    }
    if kind == "basic":
        return basic
    more: dict[str, Any] = {
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    if settings.top_k:
        more["top_k"] = settings.top_k
    if settings.min_tokens:
        more["min_tokens"] = settings.min_tokens
    if settings.repetition_penalty != 1:
        more |= {
            "repetition_penalty": settings.repetition_penalty,
            "repeat_penalty": settings.repetition_penalty,
        }
    return basic | more


async def blocks(response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """The answer's bytes as they come; raises ValueError where they are packed or too many."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ValueError("packed, although we asked for it plain")
    async for block in response.aiter_raw():
        max_bytes -= len(block)
        if max_bytes < 0:
            raise ValueError("longer than what was asked for")
        yield block


async def chunks(response: httpx.Response, max_bytes: int) -> AsyncIterator[Chunk]:
    """The events of a stream; raises ValueError and its like for anything else, and for a stream that just ends."""
    rest, ended = b"", False
    # not by text lines, which also end at marks that JSON may hold
    async for block in blocks(response, max_bytes):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_LINE:
            raise ValueError("a line without end")
        for line in lines:
            if not line.startswith(b"data:"):  # blank, a keep-alive comment, or an event's name
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            chunk = read_event(data)
            ended = ended or bool(chunk.finish)
            yield chunk
    if not ended:
        raise ValueError("the stream ends in the middle")


def read_event(data: bytes) -> Chunk:
    event = read_json(data)
    if event.get("error"):
        raise ValueError("the server reports an error")
    choice = (event.get("choices") or [{}])[0]
    delta, finish = choice.get("delta") or {}, choice.get("finish_reason")
    text = delta.get("content")
    usage = {
        name: count
        for name, count in (event.get("usage") or {}).items()
        if type(count) is int and 0 <= count < 10**7
    }
    thought = bool(delta.get("reasoning_content") or delta.get("reasoning"))
    finish = finish if isinstance(finish, str) else None
    return Chunk(text if isinstance(text, str) else "", thought, finish, usage)


def read_json(data: bytes) -> Any:
    """What JSON says; ValueError also for what is nested without end."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def retry_after(response: httpx.Response) -> float:
    """How many seconds the server asks us to wait; 0 where it does not say."""
    said = response.headers.get("retry-after", "").strip()
    if said.isdecimal():
        return float(said[:9])
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return 0.0


def failure(error: httpx.RequestError) -> int:
    """Which of the three kinds a failed request is."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return UNREACHABLE
    return SILENT if isinstance(error, httpx.TimeoutException) else BROKEN


def sentence(status: int, model: str) -> str:
    """What the visitor reads. Never the server's own words, which may repeat the request."""
    if status in (401, 403):
        return f"The model's server refuses this page ({status}); set MODEL_ENDPOINT_TOKEN to a token that it accepts."
    if status in NOT_ACCEPTED:
        return (
            f"The model's server does not accept the request ({status}) in any form that is known here; "
            "look into its log, or check --model."
        )
    known = {
        404: f"The model's server does not know {model} (404); name a model that it has with --model, or correct --endpoint.",
        429: "The model's server is busy (429); try again in a minute.",
        UNREACHABLE: "The model's server cannot be reached; start it, or correct --endpoint, and try again.",
        SILENT: "The model's server did not answer in time; try again in a moment.",
        THINKING: "The model only thought and came to no answer; choose one that does not think, or another server.",
        BROKEN: "The model's server broke off its answer; what arrived is kept, try again.",
    }
    return known.get(status, f"The model's server failed ({status}); try again in a moment.")
