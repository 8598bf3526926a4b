"""What the running page keeps out and says of itself: large bodies, files, headers, health, other hosts.

Run: `python -m pytest tests/page/test_door.py`
"""

import threading

import httpx
import pytest

from page import backend, middleware
from tests.page.visitor import PERSONA, Visitor


def test_a_large_body_is_refused_before_it_is_read(url):
    for headers in ({}, {"content-length": str(middleware.MAX_BODY_BYTES + 1)}):
        body = (
            b"x" * (middleware.MAX_BODY_BYTES + 1)
            if headers
            else (b"x" * 100_000 for _ in range(20))
        )
        assert (
            httpx.post(
                url + "gradio_api/queue/join",
                content=body,
                headers={"content-type": "application/json"},
            ).status_code
            == 413
        )


@pytest.mark.parametrize(
    "path",
    [
        "upload",
        "file=/etc/passwd",
        "file=http://127.0.0.1/",
        "proxy=http://127.0.0.1/",
        "component_server",
    ],
)
def test_files_are_neither_taken_nor_served(url, path):
    for root in ("gradio_api/", ""):
        for ask in (httpx.get, httpx.post):
            assert ask(url + root + path).status_code in (403, 404)
    assert httpx.post(url + "gradio_api/upload", files={"files": b"x"}).status_code == 404


def test_every_answer_carries_the_security_headers(url):
    for path in ("", "config", "healthz", "theme.css"):
        headers = httpx.get(url + path).headers
        assert (
            "default-src 'self'" in headers["content-security-policy"]
            and headers["x-content-type-options"] == "nosniff"
        )


def test_health_tells_loading_and_closing(url, monkeypatch):
    assert httpx.get(url + "healthz").json() == {"status": "ready"}
    monkeypatch.setattr(backend, "ready", threading.Event())
    assert (httpx.get(url + "healthz").status_code, httpx.get(url + "healthz").json()) == (
        503,
        {"status": "loading"},
    )
    monkeypatch.setattr(middleware, "draining", threading.Event())
    middleware.draining.set()
    assert httpx.get(url + "healthz").json() == {"status": "closing"}


def test_while_closing_new_work_is_refused(url, monkeypatch):
    visitor = Visitor(url)
    monkeypatch.setattr(middleware, "draining", threading.Event())
    middleware.draining.set()
    answer = visitor.join("send", "hi!", PERSONA, None)
    assert answer.status_code == 503 and "restarting" in answer.text


def test_the_page_asks_nobody_else(url):
    html = httpx.get(url).text
    config = httpx.get(url + "config").json()
    assert config["analytics_enabled"] is False and config.get("run_history", False) is False
    assert "fonts.googleapis" not in html + httpx.get(url + "theme.css").text
