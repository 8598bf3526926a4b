"""What OpenAI-compatible servers understand: the conversation as messages, the settings as fields, the answer as events."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import httpx

from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.prompt import SILENCE, system_text, tidy
from persona_bot.settings import Settings

BUSY = (429, 502, 503, 504)
# a field that the server does not know, or more turns than its model takes
NOT_ACCEPTED = (400, 413, 422)
UNREACHABLE, SILENT, BROKEN = -1, -2, -3  # beside HTTP's statuses
# how chat templates begin their control tokens
CONTROL = re.compile(r"<(?=[|｜/a-zA-Z_])|\[(?=/?[A-Z_]{4,}\])")


class Chunk(NamedTuple):
    """One event of the stream, `data: {"choices": [{"delta": {"content": " hi"}, "finish_reason": null}]}` and the like."""

    text: str
    finish: str | None  # "stop" or "length" on the last one with a choice
    usage: dict  # prompt_tokens and completion_tokens, where the server counts them


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


def messages(persona: Persona, turns: Sequence[str]) -> list[dict]:
    """The conversation as ChatLayout has it, the persona in the system turn; what looks like a control token is broken up."""
    texts = [system_text(persona), *(tidy(turn) if turn != SILENCE else "" for turn in turns)]
    roles = ["system", *("assistant" if k % 2 else "user" for k in range(len(turns)))]
    clean = [CONTROL.sub(r"\g<0> ", text).encode("utf-8", "replace").decode() for text in texts]
    return [{"role": role, "content": text} for role, text in zip(roles, clean, strict=True)]


def fields(settings: Settings, full: bool) -> dict:
    """The settings in OpenAI's names; `full` adds what vLLM, llama.cpp and others know, each by its own name, and only if it is on."""
    # TGI refuses a top_p of 1
    basic = {
        "temperature": settings.temperature,
        "top_p": min(settings.top_p, 0.999),
        "max_tokens": settings.max_tokens,
    }
    if settings.seed is not None:
        basic["seed"] = settings.seed
    if not full:
        return basic
    more = {
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


async def chunks(response: httpx.Response) -> AsyncIterator[Chunk]:
    """The events of a stream; raises ValueError and its like for anything else, and for a stream that just ends."""
    rest, ended = b"", False
    # not aiter_lines, which also splits at marks that JSON may hold
    async for block in response.aiter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):  # blank, a keep-alive comment, or an event's name
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            event = json.loads(data)
            if event.get("error"):
                raise ValueError("the server reports an error")
            choice = (event.get("choices") or [{}])[0]
            text, finish = (choice.get("delta") or {}).get("content"), choice.get("finish_reason")
            usage = {
                name: count
                for name, count in (event.get("usage") or {}).items()
                if isinstance(count, int)
            }
            yield Chunk(text if isinstance(text, str) else "", finish, usage)
            ended = ended or bool(finish)
    if not ended:
        raise ValueError("the stream ends in the middle")


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
        return f"The model's server does not accept the request ({status}); shorten the message, or check --model."
    known = {
        404: f"The model's server does not know {model} (404); name a model that it has with --model, or correct --endpoint.",
        429: "The model's server is busy (429); try again in a minute.",
        UNREACHABLE: "The model's server cannot be reached; start it, or correct --endpoint, and try again.",
        SILENT: "The model's server did not answer in time; try again in a moment.",
        BROKEN: "The model's server broke off its answer; what arrived is kept, try again.",
    }
    return known.get(status, f"The model's server failed ({status}); try again in a moment.")
