"""A server's answer as events. It is a stranger: its bytes are bounded by what was asked for, lines by their length, JSON by
its depth. (huggingface_hub's client reads lines of any length and answers of any size, which is why this is not it.)
"""

import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from persona_bot.replies.endpoint_faults import ReportedError

DONE = b"[DONE]"
MAX_LINE = 64 << 10  # bytes of one event
# a \r at the end may be the first half of \r\n
LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")


class Chunk(NamedTuple):
    """One event of the stream, `data: {"choices": [{"delta": {"content": " hi"}, "finish_reason": null}]}` and the like."""

    text: str
    thought: bool = False  # it holds what the model thinks, in a field of its own
    refused: bool = False  # by the model or a filter, which is told instead of a text
    finish: str | None = None  # "stop" or "length" on the last one with a choice
    usage: Mapping[str, int] = {}  # prompt_tokens, completion_tokens, where it counts them


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
    """The events of an answer; raises ValueError and its like for anything else, and for a stream that just ends."""
    ended = streamed = said = False
    async for event in events(response, max_bytes):
        if event is DONE:  # some name no reason
            ended = ended or said
            break
        chunk = read_event(event, streamed)
        ended, said = ended or bool(chunk.finish), said or bool(chunk.text)
        streamed = streamed or bool(choice_of(event).get("delta"))
        yield chunk
    if not ended:
        raise ValueError("the stream ends in the middle")


async def events(response: httpx.Response, max_bytes: int) -> AsyncIterator[Any]:
    """What JSON each event holds, and DONE: of a stream, or of the one object that a server without streams sends."""
    pending: list[bytes] = []  # the lines of an event that takes several
    async for line in lines(response, max_bytes):
        if line.startswith(b"{"):
            yield read_json(line)
        elif line.startswith(b"data:"):  # else a keep-alive comment, or an event's name
            data = line[5:].strip()
            if data == DONE:
                yield DONE
                return
            event = None if pending else whole_event(data)
            if event is not None:  # some servers leave no line blank between their events
                yield event
            elif data:
                pending.append(data)
        elif not line and pending:
            yield read_json(b"\n".join(pending)) or {}  # some send null
            pending = []


async def lines(response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """A stream's lines, not those of text, which also end at marks that JSON may hold; one object of JSON as one line."""
    stream = blocks(response, max_bytes)
    rest = b""
    if "json" in response.headers.get("content-type", ""):
        rest = b"".join([block async for block in stream]).removeprefix(b"\xef\xbb\xbf").strip()
        if rest.startswith(b"{"):
            yield rest
            return
    async for block in stream:
        *whole, rest = LINE_END.split(rest + block)
        if len(rest) > MAX_LINE:
            raise ValueError("a line without end")
        for line in whole:
            yield line.removeprefix(b"\xef\xbb\xbf")  # may stand before the first
    for line in LINE_END.split(rest.rstrip(b"\r")):
        yield line


def choice_of(event: Any) -> Any:
    return (event.get("choices") or [{}])[0]


def read_event(event: Any, streamed: bool) -> Chunk:
    """`streamed`: pieces came before; else a message may stand in their place."""
    if error := event if event.get("object") == "error" else event.get("error"):
        raise ReportedError(error)
    choice = choice_of(event)
    delta, finish = choice.get("delta"), choice.get("finish_reason")
    delta = delta or (not streamed and choice.get("message")) or {}
    if event.get("object") == "chat.completion":  # no stream, and so whole
        finish = finish or "stop"
    text, thought = read_content(delta.get("content"))
    usage = {
        name: count
        for name, count in (event.get("usage") or {}).items()
        if type(count) is int and 0 <= count < 10**7
    }
    thought = thought or any(delta.get(field) for field in THOUGHT_FIELDS)
    refused = finish == "content_filter" or bool(delta.get("refusal"))
    return Chunk(text, thought, refused, finish if isinstance(finish, str) else None, usage)


def read_content(content: Any) -> tuple[str, bool]:
    """(the text of a piece, whether there is a thought in it)."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else "", False
    texts = [part.get("text") for part in content if part.get("type") == "text"]
    thought = any(part.get("type") in THOUGHT_FIELDS for part in content)
    return "".join(text for text in texts if isinstance(text, str)), thought


def whole_event(data: bytes) -> Any:
    """An event of one line; None for a part of one."""
    try:
        return read_json(data)
    except ValueError:
        return None


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
