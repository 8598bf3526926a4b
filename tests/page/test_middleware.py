"""The page's door: which addresses are open, what malformed calls get, and each client's share.

Run: `python -m pytest tests/page/test_middleware.py`
"""

import json
import socket
import uuid
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.routing import Route

from page import backend, faults, middleware
from page.blocks import demo
from page.limits import Rate, client_of
from page.middleware import Access
from page.routes import OPEN
from tests.models import batched_model
from tests.page.visitor import call, function_number


@pytest.fixture(scope="module")
def url(page_url, chat_model, chat_tokenizer) -> str:
    backend.use(batched_model(chat_model, chat_tokenizer))
    return page_url


def client_at(address: str, url: str) -> httpx.Client:
    """A client with an address of its own on this machine's loopback network."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=url, transport=transport, timeout=30)


@pytest.fixture(scope="module")
def http():
    """One for all calls: making one takes longer than they do."""
    with httpx.Client(timeout=10) as client:
        yield client


# ---- addresses


def installed_routes() -> set[tuple[str, str]]:
    """(method, path) of every route of the installed Gradio, and of ours."""
    found = set()

    def walk(routes, prefix=""):
        for route in routes:
            if hasattr(route, "effective_candidates"):  # a router inside the app
                inner = route.original_router
                walk(inner.routes, prefix + (route.include_context.prefix or ""))
            else:
                methods = getattr(route, "methods", None) or {"GET"}
                found.update((method, prefix + route.path) for method in methods)

    walk(demo.app.routes)
    return found


def test_only_what_is_listed_is_open(http, url):
    installed = installed_routes()
    assert len(installed) > 60 and ("POST", "/gradio_api/upload") in installed
    listed = {(method, path) for method, paths in OPEN.items() for path in paths}
    assert listed <= installed, "an open address that Gradio no longer has"
    own = {
        (m, route.path)
        for route in middleware.routes
        if isinstance(route, Route)
        for m in route.methods
    }
    for method, path in sorted(installed - listed - own):
        probe = path.replace("{path:path}", "x").replace("{path_or_url:path}", "x")
        probe = "".join("x" if c in "{}" else c for c in probe)
        answer = http.request(method, url.rstrip("/") + probe, timeout=10)
        if probe.rstrip("/") == path.rstrip("/") and (method, path.rstrip("/")) in listed:
            continue
        assert answer.status_code in (404, 405), (method, path)
        assert "content-security-policy" in answer.headers, (method, path)


@pytest.mark.parametrize(
    "path",
    ["gradio_api/deep_link?session_hash=x", "monitoring", "monitoring/summary", "openapi.json", "login"]
    + ["gradio_api/runs", "gradio_api/vibe-code", "gradio_api/mcp", "gradio_api/file=x"]
    + ["gradio_api//upload", "gradio_api/%75pload", "gradio_api/call/../upload", "svelte/x", "svelte/../config"],
)  # fmt: skip
def test_closed_addresses_do_not_exist(http, url, path):
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = http.request(method, url + path, json={})
        assert answer.status_code == 404 or (path == "svelte/../config" and method == "GET")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_refusals_of_every_kind_carry_the_security_headers(http, url):
    answers = [
        http.get(url + "nothing"),
        http.post(url + "gradio_api/queue/join", content=b"{"),
        http.post(url + "gradio_api/queue/join", json=[]),
        http.post(url + "gradio_api/queue/join", content=b" " * 1_100_000),
        http.get(url + "config", headers={"host": "a/b"}),
    ]
    assert [answer.status_code for answer in answers] == [404, 415, 400, 413, 400]
    for answer in answers:
        assert answer.json()["detail"].endswith(".")
        assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "host", ["a/b", "a b", "a:b", "a:1:2", "u@a", "[::1", "a?b", "a#b", "ä".encode(), "a" * 300, ""]
)
def test_a_host_header_that_is_no_host_is_refused(http, url, host):
    answer = http.get(url + "config", headers={"host": host})
    assert answer.status_code == 400
    assert answer.json() == {"detail": "The Host header is no name of a server."}


def test_what_repeats_the_host_header_is_kept_for_nobody_else(http, url):
    for path in ("", "config"):
        answer = http.get(url + path, headers={"host": "other.example:80"})
        assert answer.status_code == 200 and "private" in answer.headers["cache-control"]
    for host in ("[::1]:7860", "127.0.0.1", "my-space.hf.space"):
        assert http.get(url + "config", headers={"host": host}).status_code == 200


def test_the_sites_that_may_embed_it_are_an_option(http, url, monkeypatch):
    policy = http.get(url).headers["content-security-policy"]
    assert "frame-ancestors 'self' https://huggingface.co" in policy
    monkeypatch.setattr(middleware, "access", Access(limited=False, embed=("https://a.example",)))
    policy = http.get(url).headers["content-security-policy"]
    assert policy.endswith("frame-ancestors 'self' https://a.example")


# ---- malformed calls

MALFORMED = [
    b"", b"{", b"[]", b"null", b"7", b"[" * 100_000, b'{"data":' * 5_000, b"\xff\xfe",
    b'{"data": [NaN], "fn_index": 1, "session_hash": "a"}',
    *(json.dumps(body).encode() for body in (
        {}, {"data": None}, {"data": {}}, {"data": []},
        {"data": [], "session_hash": "a"}, {"data": [], "session_hash": "a", "fn_index": -1},
        {"data": [], "session_hash": "a", "fn_index": True}, {"data": [], "session_hash": "a", "fn_index": 1e300},
        {"data": [], "session_hash": "a", "fn_index": "1"}, {"data": [], "session_hash": ["a"], "fn_index": 1},
        {"data": [], "session_hash": "\ud800", "fn_index": 1}, {"data": [], "session_hash": "a" * 65, "fn_index": 1},
        {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "session_hash": "a", "fn_index": 1},
        {"data": [[[{"url": "http://127.0.0.1"}]]], "session_hash": "a", "fn_index": 1},
        {"data": [[]] * 99, "session_hash": "a", "fn_index": 1},
    )),
]  # fmt: skip


@pytest.mark.parametrize("path", ["queue/join", "run/predict", "run/x", "call/x", "call/v2/x"])
def test_malformed_calls_get_a_4xx_with_one_sentence(http, url, path):
    for body in MALFORMED:
        answer = http.post(
            url + "gradio_api/" + path, content=body, headers={"content-type": "application/json"}
        )
        assert 400 <= answer.status_code < 500, (body[:80], answer.text)
        sentence = answer.json()["detail"]
        assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence


def test_calls_that_fail_inside_are_4xx_and_one_line_in_the_log(http, url, capfd):
    """Of each kind one line a minute, and never a traceback."""
    faults._told.clear()
    number = function_number("choose_face")
    inputs = len(demo.fns[number].inputs)
    for value in range(50):
        body = {
            "data": [None] * inputs,
            "fn_index": number,
            "session_hash": "x",
            "event_data": value,
        }
        answer = http.post(url + "gradio_api/run/predict", json=body)
        assert answer.status_code == 400 and answer.json()["error"].endswith(".")
    output, errors = capfd.readouterr()
    assert "Traceback" not in output + errors
    assert len(errors.splitlines()) == 1 and "A call failed: " in errors


@pytest.mark.parametrize("path", ["queue/data", "heartbeat/", "run/predict"])
def test_what_fastapi_finds_wrong_is_one_sentence_too(http, url, path):
    address, kind = url + "gradio_api/" + path, {"content-type": "application/json"}
    for answer in (
        http.get(address),
        http.post(address, content=b'{"data": [1], "persona": 5}', headers=kind),
    ):
        assert 400 <= answer.status_code < 500 and answer.status_code != 422
        assert isinstance(answer.json()["detail"], str)


def test_half_characters_break_no_connection(url):
    with httpx.Client(base_url=url) as client:
        number = function_number("halt")
        for text in ("\ud83d", "\udc00\ud800", "a\udfffb"):
            body = {"data": [text, None], "fn_index": number, "session_hash": "y"}
            answer = client.post(
                "gradio_api/run/predict",
                content=json.dumps(body),
                headers={"content-type": "application/json"},
            )
            assert answer.status_code == 200 and "?" in answer.text


def test_a_stream_of_nobody_ends_without_a_word_in_the_log(http, url, capfd):
    faults._told.clear()
    assert http.get(url + "gradio_api/queue/data?session_hash=nobody").status_code == 200
    assert http.get(url + "gradio_api/call/chat/nobody").status_code < 500
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_connection_that_ends_in_the_middle_of_a_call_does_no_harm(http, url):
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as cut:
        cut.sendall(
            b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 500\r\n\r\n{"
        )
    assert http.get(url + "healthz").status_code == 200


# ---- shares


def test_a_client_is_an_address_and_proxies_are_believed_by_number():
    forwarded = ["6.6.6.6, 1.1.1.1", "2.2.2.2"]
    assert [client_of("9.9.9.9", forwarded, hops) for hops in range(5)] == [
        "9.9.9.9", "2.2.2.2", "1.1.1.1", "6.6.6.6", "9.9.9.9",
    ]  # fmt: skip
    assert client_of("9.9.9.9", ["nonsense"], 1) == "9.9.9.9"
    assert client_of("2001:db8::1", [], 0) == client_of("2001:db8::ffff:2", [], 0)
    assert client_of("::ffff:1.2.3.4", [], 0) == "1.2.3.4"


def test_a_rate_lets_so_many_through_and_says_how_long_to_wait(monkeypatch):
    now = 0.0
    # not the clock itself: by it the server's loop would sleep until that time has come
    monkeypatch.setattr("page.limits.time", SimpleNamespace(monotonic=lambda: now))
    rate = Rate(at_once=3, per_second=0.5)
    assert [rate.take("a") for _ in range(4)] == [0, 0, 0, 2]
    assert rate.take("b") == 0
    now = 2.0
    assert [rate.take("a"), rate.take("a")] == [0, 2]
    now = 1e6
    assert [rate.take("a") for _ in range(4)] == [0, 0, 0, 2]


def test_one_client_is_told_to_wait_and_others_are_not(url, monkeypatch):
    monkeypatch.setattr(middleware, "access", Access())
    with client_at("127.0.0.2", url) as greedy, client_at("127.0.0.3", url) as visitor:
        answers = [call(greedy, uuid.uuid4().hex) for _ in range(70)]
        assert [answer.status_code for answer in answers][:60] == [200] * 60
        late = answers[-1]
        assert late.status_code == 429 and int(late.headers["retry-after"]) >= 1
        assert "content-security-policy" in late.headers
        # not even by pretending to be others
        answer = greedy.post(
            "gradio_api/queue/join", json={}, headers={"x-forwarded-for": "8.8.8.8"}
        )
        assert answer.status_code == 400
        assert call(visitor, uuid.uuid4().hex).status_code == 200
        middleware.access.calls = Rate(at_once=2, per_second=0.01)
        assert [call(visitor, "z").status_code for _ in range(3)] == [200, 200, 429]
        assert visitor.get("healthz").status_code == 200


def test_one_client_cannot_fill_the_queue(url, monkeypatch):
    monkeypatch.setattr(middleware, "access", Access(waiting=0))
    with client_at("127.0.0.4", url) as client:
        answer = call(client, "w", "reply")
        assert answer.status_code == 429 and "waits for 0 replies" in answer.json()["detail"]
        assert call(client, "w").status_code == 200
