"""What stands between the network and Gradio: open addresses, limits for each client, checked calls, health, and an orderly end."""

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from page import backend, faults, metrics, sessions
from page.answers import Answer, Refused
from page.calls import Malformed, read_call, replay
from page.hosts import asked_host, is_a_host, is_ours, named, only_from_trusted
from page.limits import Rate, client_of
from page.routes import is_open

# an API call with a full persona and 199 turns of 1,000 characters has 200,000 to 800,000
MAX_BODY_BYTES = 1_000_000
TOO_LARGE = f"A request may have at most {MAX_BODY_BYTES:,} bytes."
TIDY_SECONDS = 20.0  # between two times that memory goes back to the system
DRAIN_SECONDS = 8.0  # how long running replies may go on after SIGTERM
LOST = "The server has let go of this chat; reload the page, and your browser brings it back."
OPENED = "x-chat-opened"  # the page says so with each call once a server has opened its chat
UNKNOWN_NAME = "The page is not known under this name; who runs it adds the name with --public."

draining = threading.Event()  # set by `close`: running replies go on, new ones are refused

# uvicorn would believe X-Forwarded-For of anything on this machine
os.environ["FORWARDED_ALLOW_IPS"] = ""
faults.quieten()


@dataclass
class Access:
    """Who may do how much; `python app.py` sets it from its options."""

    # trusted ones in front of the page; what any other says of its client is not believed
    proxies: int = 0
    limited: bool = True  # whether the limits below hold
    waiting: int = 24  # replies that one client may be writing and waiting for
    # under which it answers, beside those of this network; None: under every one
    names: dict[str, str] | None = None  # each with its scheme, where that is known
    embed: tuple[str, ...] = (
        "https://huggingface.co",
        "https://*.hf.space",
    )  # may show it in a frame

    def __post_init__(self) -> None:
        self.calls = Rate(at_once=200, per_second=30)
        self.sessions = Rate(at_once=60, per_second=0.5)

    def add_names(self, addresses: Iterable[str]) -> None:
        """Those of addresses under which the page was opened, a public link among them."""
        if self.names is not None:
            self.names |= dict(map(named, addresses))


access = Access()


class SecurityMiddleware:
    """ASGI middleware: lets in what the page uses and each client's share of it; nothing that fails inside breaks a connection."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page uses none
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self.let_in(scope, receive, Answer(send, access.embed))
        else:
            await self.app(scope, receive, send)

    async def let_in(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        path = get_route_path(scope)
        answer.of_a_call = path.startswith("/gradio_api/")
        answer.names_host = path in ("", "/", "/config")
        scope["client_name"] = believe(scope)
        try:
            refuse_request(scope, path)
            if scope["method"] == "POST":
                receive = await self.check(scope, path, receive)
        except Refused as refusal:
            answer.of_a_call = False  # it says what it has to say by itself
            await refusal.response(scope, receive, answer.send)
            return
        visit = path.startswith("/gradio_api/heartbeat/")
        metrics.visitor(+visit)
        try:
            await self.app(scope, receive, answer.send)
        except Exception as error:
            faults.note(error)
            await answer.give_up()
        finally:
            metrics.visitor(-visit)

    async def check(self, scope: Scope, path: str, receive: Receive) -> Receive:
        """What the app receives instead: the call's body, read and found good."""
        if access.limited:
            refuse_if(access.calls.take(scope["client_name"]))
        body = await read_body(receive)
        app = scope["app"]
        kept = sessions.adopt(app)
        try:
            call = read_call(body, path, app.get_blocks())
        except Malformed as problem:
            raise Refused(problem.status, str(problem)) from None
        anew = OPENED in Headers(scope=scope) and call.session not in kept.session_data
        if anew or call.session in kept.lost:
            raise Refused(409, LOST)
        if draining.is_set() and call.function:
            raise Refused(503, "The server is restarting; try again in a minute.", 60)
        if access.limited:
            refuse_beyond_share(scope["client_name"], call.session, call.function, app, kept)
        MutableHeaders(scope=scope)["content-length"] = str(len(call.body))
        return replay(call.body, receive)


def believe(scope: Scope) -> str:
    """The client's name for the limits; X-Forwarded-* of anybody but a trusted proxy is taken off."""
    headers = Headers(scope=scope)
    peer = (scope.get("client") or ("unknown", 0))[0]
    client = client_of(peer, headers.getlist("x-forwarded-for"), access.proxies)
    scope["headers"] = only_from_trusted(scope["headers"], access.proxies)
    return client


def refuse_request(scope: Scope, path: str) -> None:
    headers = Headers(scope=scope)
    if path in OWN and scope["method"] in ("GET", "HEAD"):
        return
    if not is_open(scope["method"], path):
        raise Refused(404, "This page has nothing at that address.")
    if not is_a_host(headers):
        raise Refused(400, "The Host header is no name of a server.")
    if access.names is not None:
        host = asked_host(headers, access.proxies)
        if not is_ours(host, access.names):
            raise Refused(421, UNKNOWN_NAME)
        if scheme := access.names.get(host):  # a public link's server speaks http with the page
            scope["scheme"] = scheme
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length[:20]) > MAX_BODY_BYTES:
        raise Refused(413, TOO_LARGE)
    if scope["method"] == "POST" and not headers.get("content-type", "").startswith(
        "application/json"
    ):
        raise Refused(415, "The body of a call must be application/json.")


def refuse_beyond_share(
    client: str, session: str | None, function: Any, app: Any, kept: sessions.Sessions
) -> None:
    if session and session not in kept.session_data:
        refuse_if(access.sessions.take(client))
    if function is None or function.concurrency_id != "model":
        return
    events = list(app.get_blocks()._queue.event_ids_to_events.values())
    theirs = [
        event
        for event in events
        if event.concurrency_id == "model" and event.request.scope.get("client_name") == client
    ]
    if len(theirs) >= access.waiting:
        raise Refused(
            429, f"Your address waits for {len(theirs)} replies already; try again later.", 10
        )


def refuse_if(wait: float) -> None:
    if wait:
        raise Refused(429, "Too many calls came from your address; wait a moment.", wait)


async def read_body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The call was not sent to its end.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:  # a chunked body names no length beforehand
            raise Refused(413, TOO_LARGE)
        if not message.get("more_body", False):
            return b"".join(parts)


def health(request: Request | None) -> JSONResponse:
    """200 when replies can be had, 503 while the model loads, where it failed to, while its endpoint has not answered yet, or the server ends."""
    state = "closing" if draining.is_set() else backend.state()
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)


def close(*_: object) -> None:
    """What SIGTERM and Ctrl-C do: new work is refused and `wait_for_the_end` returns. All ends at once when told twice, or
    while the model still loads."""
    if draining.is_set() or not backend.ready.is_set():
        os._exit(0)  # not sys.exit: torch aborts when Python goes before a thread that loads
    draining.set()


def wait_for_the_end() -> None:
    """Blocks until SIGTERM or Ctrl-C, then until running replies are complete or DRAIN_SECONDS have passed; those left are stopped."""
    while not draining.wait(TIDY_SECONDS):
        backend.tidy()
    end = time.monotonic() + DRAIN_SECONDS
    while backend.running and time.monotonic() < end:
        time.sleep(0.05)
    for stop in list(backend.running):
        stop.set()
    time.sleep(0.5)  # the last words travel to the browsers


middleware = [Middleware(SecurityMiddleware)]
routes = [Route("/healthz", health), Route("/metrics", metrics.answer)]
OWN = {route.path for route in routes}
