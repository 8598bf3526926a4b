"""What goes out of the page's door: answers with security headers, refusals, and failures of a call as a 4xx with one sentence."""

import json
import math
from collections.abc import Sequence

from starlette.responses import JSONResponse
from starlette.types import Message, Send

FULL = "Too many people are waiting for a reply right now; try again in a minute."
UNFIT = "This call cannot be answered: its values do not fit the function."


def security_headers(embed: Sequence[str]) -> list[tuple[bytes, bytes]]:
    policy = [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio builds functions from strings
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        " ".join(["frame-ancestors 'self'", *embed]),
    ]
    return [
        (b"content-security-policy", "; ".join(policy).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),  # a persona link carries the persona in its query
    ]


class Refused(Exception):
    """An answer of our own instead of the app's."""

    def __init__(self, status: int, sentence: str, wait: float | None = None):
        super().__init__(sentence)
        headers = {} if wait is None else {"retry-after": str(math.ceil(wait))}
        self.response = JSONResponse({"detail": sentence}, status, headers)


class Answer:
    """Sends with the security headers, and turns a failure of a call into a 4xx with one sentence."""

    def __init__(self, send: Send, embed: Sequence[str]):
        """`embed`: the sites that may show the page in a frame."""
        self._send, self._security = send, security_headers(embed)
        self.names_host = False  # whether it repeats the Host header: nobody else may be given it
        self.of_a_call = self._started = self._replaced = self._ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # FastAPI's 422 is a list of its own findings
            if self.of_a_call and (message["status"] >= 500 or message["status"] == 422):
                await self._replace(message["status"])
                return
            self._started = True
            headers = [*message.get("headers", []), *self._security]
            if self.names_host and not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"private, no-cache"))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            if self._replaced:
                return
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def _replace(self, status: int) -> None:
        full = status == 503
        sentence = FULL if full else UNFIT
        body = json.dumps({"detail": sentence, "error": sentence}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers += [(b"retry-after", b"60")] if full else []
        status = 503 if full else 400
        await self._send(
            {"type": "http.response.start", "status": status, "headers": headers + self._security}
        )
        await self._send({"type": "http.response.body", "body": body})
        self._started = self._replaced = self._ended = True

    async def give_up(self) -> None:
        """The app failed: an answer that has begun ends here, another is a 400."""
        if not self._started:
            await self._replace(400)
        elif not self._ended:
            self._ended = True
            await self._send({"type": "http.response.body", "body": b""})
