"""The page watched from outside: /metrics in Prometheus' text format, where `--metrics` asks for it. Numbers only, never a word that was said."""

from collections.abc import Callable
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from persona_bot.errors import UserError


class Ended(NamedTuple):
    """A reply that is over."""

    how: str  # complete, stopped, left or failed
    tokens: int
    first_text: float | None  # in seconds; None where none came
    seconds: float


visitors = 0  # browsers that have the page open; changed by the event loop only
_enabled: "Watch | None" = None


def visitor(by: int) -> None:
    global visitors
    visitors += by


def enable(**counts: Callable[[], float]) -> None:
    """From now on /metrics answers; `counts` are waiting, sessions and faults."""
    global _enabled
    if find_spec("prometheus_client") is None:
        raise UserError("--metrics needs a package; run `pip install prometheus_client` first.")
    _enabled = Watch(**counts)


def reply_ended(reply: Ended) -> None:
    """Never waits, since the garbage collector may end a reply under any lock: it is counted when somebody asks."""
    if _enabled:
        _enabled.ended.put(reply)


def answer(request: Request) -> Response:
    if _enabled is None:
        return JSONResponse({"detail": "This page is not watched; start it with --metrics."}, 404)
    return PlainTextResponse(_enabled.text(), media_type=_enabled.content_type)


class Watch:
    """The figures, in a registry of their own."""

    def __init__(
        self,
        waiting: Callable[[], float],
        sessions: Callable[[], float],
        faults: Callable[[], float],
    ):
        import prometheus_client as prometheus

        self._prometheus: Any = prometheus
        self.ended: SimpleQueue[Ended] = SimpleQueue()
        self.content_type = prometheus.CONTENT_TYPE_LATEST
        self.registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)  # memory, descriptors, CPU time
        for name, text, function in (
            ("persona_visitors", "Browsers that have the page open", lambda: visitors),
            ("persona_sessions", "Conversations kept in memory", sessions),
            ("persona_waiting", "Replies that wait or are being written", waiting),
            ("persona_faults", "Calls that failed inside", faults),
        ):
            prometheus.Gauge(name, text, registry=registry).set_function(function)
        self.replies = prometheus.Counter(
            "persona_replies", "Replies by how they ended", ["how"], registry=registry
        )
        self.tokens = prometheus.Counter("persona_tokens", "Tokens written", registry=registry)
        self.first_text = prometheus.Histogram(
            "persona_first_text_seconds", "From the start of a reply to its first text",
            buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60), registry=registry,
        )  # fmt: skip
        self.speed = prometheus.Histogram(
            "persona_tokens_per_second", "Of one reply, the reading of its prompt included",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200), registry=registry,
        )  # fmt: skip

    def _count(self, reply: Ended) -> None:
        self.replies.labels(reply.how).inc()
        self.tokens.inc(reply.tokens)
        if reply.first_text is not None:
            self.first_text.observe(reply.first_text)
        if reply.tokens and reply.seconds > 0:
            self.speed.observe(reply.tokens / reply.seconds)

    def text(self) -> str:
        try:
            while True:
                self._count(self.ended.get_nowait())
        except Empty:
            pass
        return self._prometheus.generate_latest(self.registry).decode()
