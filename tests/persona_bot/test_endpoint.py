"""An endpoint's address, name and token, one that is down at the start, and who speaks through one: the terminal, the page.

Run: `python -m pytest tests/persona_bot/test_endpoint.py`
"""

import io
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

import persona_bot.replies.remote
import persona_bot.replies.request
from page import backend, middleware
from persona_bot.__main__ import main
from persona_bot.errors import UserError
from persona_bot.replies.openai_protocol import base_address
from persona_bot.replies.remote import Endpoint
from persona_bot.settings import Settings
from tests.children import program
from tests.endpoint_peer import BAKER, DONE, event, failure_of


@pytest.mark.parametrize(
    "written, read",
    [
        ("http://h:8000", "http://h:8000/v1"),
        (" http://h:8000/ ", "http://h:8000/v1"),
        ("http://h:8000/v1", "http://h:8000/v1"),
        ("https://h/v1/", "https://h/v1"),
        ("https://h/v1/chat/completions", "https://h/v1"),
        ("https://h/models/mine", "https://h/models/mine/v1"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai"),
        ("https://h/inference/chat/completions/", "https://h/inference"),
        ("https://h/d/chat/completions?api-version=1", "https://h/d?api-version=1"),
    ],
)
def test_addresses_are_written_in_many_ways(written, read):
    assert str(base_address(written)) == read


def test_a_whole_route_is_asked_as_it_was_written(peer):
    peer.script = [[event("i bake."), event("", "stop"), DONE]]
    endpoint = Endpoint(f"{peer.url}/inference/chat/completions?api-version=1", "mine")
    assert "".join(endpoint.reply(BAKER, ["hi"])) == "i bake."
    assert peer.bodies[0][0] == "/inference/chat/completions?api-version=1"


@pytest.mark.parametrize(
    "written",
    [
        "localhost:8000",
        "ftp://h",
        "http://",
        "",
        "http://h:99999999",
        "http://u:secret@",
        "http://h/#a",
    ],
)
def test_what_is_no_address_is_told_without_repeating_it(written):
    with pytest.raises(UserError, match="no address of a server") as caught:
        base_address(written)
    assert "secret" not in str(caught.value)


def test_the_token_goes_to_the_server_and_nowhere_else(peer, monkeypatch, capfd):
    monkeypatch.setenv("MODEL_ENDPOINT_TOKEN", " s3cret\n")
    peer.models = 401
    assert "s3cret" not in Endpoint(peer.url).problem and peer.tokens == ["Bearer s3cret"]
    monkeypatch.setenv("MODEL_ENDPOINT_TOKEN", "s3\ncret")
    with pytest.raises(UserError, match="MODEL_ENDPOINT_TOKEN"):
        Endpoint(peer.url)
    assert "cret" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "token, header", [("k3y", "api-key: k3y"), ("eyJ0.a.b", "Authorization: Bearer eyJ0.a.b")]
)
def test_azure_gets_its_key_as_it_wants_it(peer, monkeypatch, token, header):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HTTP_PROXY", peer.url)  # stands in for the machine of that name
    monkeypatch.setenv("MODEL_ENDPOINT_TOKEN", token)
    route = "http://mine.openai.azure.com/openai/deployments/d/chat/completions?api-version=1"
    peer.script = [[event("i bake."), event("", "stop"), DONE]]
    assert "".join(Endpoint(route, "d").reply(BAKER, ["hi"])) == "i bake."
    name, _, value = header.partition(": ")
    assert (peer.bodies[0][0], peer.headers[name]) == (route, value)
    assert len({"api-key", "Authorization"} & set(peer.headers.keys())) == 1


@pytest.mark.parametrize(
    "name, shown", [("a/b", "a/b"), ("/models/x.gguf", "x.gguf"), ("C:\\models\\x.gguf", "x.gguf")]
)
def test_the_model_is_shown_by_its_name(peer, name, shown):
    peer.models = {"data": [{"id": name}]}
    assert Endpoint(peer.url).name == shown


@pytest.mark.parametrize("models", [{"data": []}, {}, 404])
def test_a_server_without_a_list_of_models_needs_a_name(peer, models):
    peer.models = models
    assert "--model" in Endpoint(peer.url).problem
    named = Endpoint(peer.url, "mine")
    assert (named.problem, named.name) == (None, "mine")


def test_a_server_that_is_down_at_start_is_found_later(peer, monkeypatch, no_pauses):
    monkeypatch.setattr(persona_bot.replies.remote, "ASK_AGAIN", 0.05)
    peer.models = 503
    endpoint = Endpoint(peer.url)
    monkeypatch.setattr(backend, "model", endpoint)
    monkeypatch.setattr(backend, "ready", threading.Event())
    assert backend.state() == "loading"
    backend.use(endpoint)
    assert (backend.state(), middleware.health(None).status_code, backend.model.device_label) == (
        "unreachable",
        503,
        "another machine",
    )
    with pytest.raises(UserError, match="failed .503."):
        list(backend.write(BAKER, ["hi"], Settings(), threading.Event()))
    peer.models = {"data": [{"id": "tiny/baker"}]}
    peer.script = [[event("bread"), event("", "stop"), DONE]]
    assert [
        progress.text
        for progress in backend.write(BAKER, ["hi"], Settings(), threading.Event())
        if progress.text
    ] == ["bread", "bread"]
    assert (backend.state(), middleware.health(None).status_code, endpoint.name) == (
        "ready",
        200,
        "tiny/baker",
    )
    assert backend.context_usage(BAKER, ["hi"]) == (0, 0)


def test_nobody_listens(no_pauses):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert "cannot be reached" in Endpoint(address).problem
    endpoint = Endpoint(address, "mine")
    assert "cannot be reached" in failure_of(endpoint.reply(BAKER, ["hi"]))


def test_the_terminal_speaks_through_an_endpoint(peer, monkeypatch, capsys):
    peer.script = [[event("i bake."), event("", "stop"), DONE]]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\n")))
    assert main(["--endpoint", peer.url, "--persona", "soldier", "--seed", "5"]) == 0
    output = capsys.readouterr()
    assert output.out == "🪖 i bake.\n" and "tiny/baker on another machine, seed 5." in output.err
    assert peer.bodies[0][1]["seed"] == 5
    assert main(["--endpoint", "localhost:8000"]) == 2


def test_the_terminal_keeps_what_arrived_before_an_error(peer, monkeypatch, capsys):
    peer.script = [[event("i bake")], [event("bread."), event("", "stop"), DONE]]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\nand?\n")))
    assert main(["--endpoint", peer.url, "--persona", "soldier", "--seed", "5"]) == 0
    assert "what arrived is kept" in capsys.readouterr().err
    sent = [message["content"] for message in peer.bodies[1][1]["messages"]]
    assert sent[1:] == ["hello", "i bake", "and?"]


def test_the_page_opens_at_once_and_answers_through_the_endpoint(peer):
    peer.script = [[event("i bake"), event(" bread."), event("", "stop"), DONE]]
    command = [sys.executable, "app.py", "--endpoint", peer.url, "--host", "127.0.0.1"]
    root = Path(__file__).parents[2]
    with program(command, cwd=root, stdout=subprocess.PIPE, text=True) as app:
        address = app.stdout.readline().strip().rstrip("/")
        assert app.stdout.readline() == "Ready: tiny/baker on another machine.\n"
        assert httpx.get(f"{address}/healthz").json() == {"status": "ready"}
        call = {"data": [["i am a baker."], ["hi!"], 0.7, 0.9, 0, 6, 60, 1.1, None, 1]}
        name = httpx.post(f"{address}/gradio_api/call/chat", json=call).json()["event_id"]
        lines = httpx.get(f"{address}/gradio_api/call/chat/{name}", timeout=30).text
        assert 'data: ["i bake bread."]' in lines
        app.terminate()
        assert app.wait(20) == 0
