"""What stands between the network and Gradio: size limit, refused routes, security headers, health, and an orderly end."""

import os
import threading
import time

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from page import backend

# an API call with a full persona and 199 turns of 1,000 characters has 200,000 to 800,000
MAX_BODY_BYTES = 1_000_000
TOO_LARGE = f"A request may have at most {MAX_BODY_BYTES:,} bytes."
DRAIN_SECONDS = 8.0  # how long running replies may go on after SIGTERM
# nothing here needs them
REFUSED = (
    "/upload",
    "/upload_progress",
    "/file=",
    "/file/",
    "/proxy=",
    "/component_server",
    "/stream/",
)
JOINS = ("/queue/join", "/call/", "/run/", "/api/")

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio builds functions from strings
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
    ]
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),  # a persona link carries the persona in its query
]

closing = threading.Event()  # set at SIGTERM: running replies go on, new ones are refused


class Door:
    """ASGI middleware: refuses what the page never asks for, and adds the headers to everything else."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refusal = refuse(scope["path"], dict(scope["headers"]))
        if refusal:
            return await refusal(scope, receive, send)
        room = MAX_BODY_BYTES

        async def receive_within_limit():
            nonlocal room
            message = await receive()
            room -= len(message.get("body", b""))
            if room < 0:  # a chunked body names no length beforehand
                raise HTTPException(413, TOO_LARGE)
            return message

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        await self.app(scope, receive_within_limit, send_with_headers)


def refuse(path: str, headers: dict[bytes, bytes]) -> JSONResponse | None:
    """The answer to a request that is not let in, else None."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return JSONResponse({"detail": TOO_LARGE}, 413)
    inner = path.removeprefix("/gradio_api")
    if inner.startswith(REFUSED):
        return JSONResponse({"detail": "This page takes and serves no files."}, 403)
    if closing.is_set() and inner.startswith(JOINS):
        return JSONResponse({"detail": "The server is restarting; try again in a minute."}, 503)
    return None


def health(request) -> JSONResponse:
    """200 when replies can be had, 503 while the model loads, its endpoint has not answered yet, or the server ends."""
    state = "closing" if closing.is_set() else backend.state()
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)


def close(*_) -> None:
    """What SIGTERM does: new work is refused and `wait_for_the_end` returns; while the model still loads, all ends at once."""
    closing.set()
    if not backend.ready.is_set():
        os._exit(0)  # not sys.exit: torch aborts when Python goes before a thread that loads


def wait_for_the_end() -> None:
    """Blocks until SIGTERM, then until running replies are complete or DRAIN_SECONDS have passed; those left are stopped."""
    closing.wait()
    end = time.monotonic() + DRAIN_SECONDS
    while backend.running and time.monotonic() < end:
        time.sleep(0.05)
    for stop in list(backend.running):
        stop.set()
    time.sleep(0.5)  # the last words travel to the browsers


middleware = [Middleware(Door)]
routes = [Route("/healthz", health)]
