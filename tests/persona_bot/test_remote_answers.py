"""Answers that are no plain stream of texts: read where they can be, else told in one sentence that names cause and cure.

Run: `python -m pytest tests/persona_bot/test_remote_answers.py`
"""

import json
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from persona_bot.replies.openai_protocol import THOUGHT_TOKENS
from persona_bot.replies.remote import Endpoint
from persona_bot.settings import Settings
from tests.endpoint_peer import BAKER, DONE, event, outcome

STOP = event("", "stop")


@pytest.fixture(autouse=True)
def quick(no_pauses):
    pass


def delta(finish=None, **fields) -> bytes:
    choice = {"delta": fields, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def ask(peer, turns=("hi there",), **settings):
    return Endpoint(peer.url).reply(BAKER, turns, Settings(**settings))


# Read


def json_answer(content: dict, kind="application/json"):
    return (200, {"Content-Type": kind}, [json.dumps(content, indent=1).encode()])


WHOLE = {"choices": [{"message": {"content": "i bake."}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "answer",
    [
        [delta(content=[{"type": "text", "text": "i "}, {"type": "text", "text": "bake."}]), STOP],
        [
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
            event("i bake."),
            STOP,
        ],
        [b"data: " + json.dumps(WHOLE).encode() + b"\n\n", DONE],
        [b'data: {"choices": [{"message": {"content": "i "}}]}\n\n']
        + [b"data: " + json.dumps(WHOLE).replace("i bake", "bake").encode() + b"\n\n"],
        [event("i bake."), b"data: " + json.dumps(WHOLE).encode() + b"\n\n", DONE],
        json_answer(WHOLE),
        json_answer(
            {"object": "chat.completion", "choices": [{"message": {"content": "i bake."}}]}
        ),
        (200, {"Content-Type": "application/json"}, [event("i bake."), STOP, DONE]),
        [b"data:\n\ndata: \n\n", event("i bake."), b"data: null\n\n", STOP, DONE],
        [event("i bake.").replace(b"\n", b"\r"), STOP.replace(b"\n", b"\r")],
        [part for byte in event("i bake.", "stop").replace(b"\n", b"\r\n") for part in (bytes([byte]), 0.001)],
        [b"\xef\xbb\xbf", event("i bake."), STOP, DONE],
        [b'data: {"choices":\ndata: [{"delta": {"content": "i bake."},\ndata: "finish_reason": "stop"}]}\n\n'],
        [event("i bake.")[:-1], STOP[:-1], DONE],
        [event("i bake."), DONE],
    ],
)  # fmt: skip
def test_text_is_read_however_it_is_packed(peer, answer):
    peer.script = [answer]
    reply = ask(peer)
    assert (outcome(reply), reply.finish_reason) == ("i bake.", "stop")


# Without text


@pytest.mark.parametrize(
    "answer, words",
    [
        ([event(""), event(None, "content_filter"), DONE], "withholds its answer"),
        ([delta(refusal="I can't help with that."), STOP, DONE], "withholds its answer"),
        ([delta(tool_calls=[{"index": 0}]), event(None, "tool_calls"), DONE], "without text"),
        ([event(" \n"), STOP, DONE], "without text"),
        ([event(""), STOP, 30.0], "without text"),
        ([event(None), DONE], "broke off before it answered"),
        ([DONE], "broke off before it answered"),
    ],
)
def test_an_answer_without_text_is_told(peer, answer, words):
    peer.script = [answer] * 3
    assert words in outcome(ask(peer))


def test_a_filter_in_mid_answer_keeps_what_came(peer):
    peer.script = [[event("i bake."), event(None, "content_filter"), DONE]]
    assert outcome(ask(peer)) == "i bake."


# Thoughts


def test_a_hidden_thought_is_asked_again_with_room_for_an_answer(peer):
    hidden = [event(""), event(None, "length"), DONE]
    peer.script = [hidden, [event("i bake."), STOP, DONE]]
    assert outcome(ask(peer, max_tokens=50)) == "i bake."
    assert [body["max_tokens"] for _, body in peer.bodies] == [50, 50 + THOUGHT_TOKENS]
    peer.script = [hidden] * 2
    assert "only thought" in outcome(ask(peer))


def test_a_thought_whose_end_alone_is_marked_is_shown_once_at_most(peer):
    endpoint = Endpoint(peer.url)
    answer = [event("Okay, hm.\n</th"), event("ink>\n\ni bake."), STOP, DONE]
    peer.script = [answer, answer, [event("just "), event("bread."), STOP, DONE]]
    peer.script += [[event("Okay, "), event("hm"), event("", "length"), DONE]] * 2
    told = [outcome(endpoint.reply(BAKER, ["hi there"])) for _ in range(4)]
    assert told[0].endswith("i bake.") and told[1:3] == ["i bake.", "just bread."]
    assert "only thought" in told[3] and peer.script == []


@pytest.mark.parametrize("size", [1, 4, 1_000])
@pytest.mark.parametrize(
    "text",
    [
        "<thought>Okay [hm]</thought>i bake [bread] <3.",
        "<reasoning>Okay\n</reasoning>\n\ni bake [bread] <3.",
        "<seed:think>Okay</seed:think>i bake [bread] <3.",
        "[THINK]Okay[/THINK]i bake [bread] <3.",
        "◁think▷Okay◁/think▷i bake [bread] <3.",
        "<|channel|>analysis<|message|>Okay<|end|><|start|>assistant<|channel|>final<|message|>i bake [bread] <3.",
        "<|channel|>final<|message|>i bake [bread] <3.",
    ],
)
def test_every_mark_of_a_thought_is_known(peer, text, size):
    parts = [event(text[k : k + size]) for k in range(0, len(text), size)]
    answer = [*parts, STOP, DONE]
    peer.script = [answer, answer]
    endpoint = Endpoint(peer.url)
    for _ in range(2):
        shown = outcome(endpoint.reply(BAKER, ["hi there"], Settings(max_tokens=200)))
        assert shown == "i bake [bread] <3."


# Errors


def reported(**error) -> bytes:
    return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"


FILTERED = {"message": "The prompt was filtered.", "code": "content_filter", "param": "prompt"}
PAGE = (200, {"Content-Type": "text/html"}, [b"<html>log in</html>"])


@pytest.mark.parametrize(
    "answer, asked, words",
    [
        ([reported(message="hi there")], 1, "reports an error"),
        ([event(None), reported(message="hi there", code="x")], 1, "reports an error"),
        ([b'data: {"object": "error", "message": "hi there"}\n\n'], 1, "reports an error"),
        ([reported(message="hi there", code=500)], 1, "failed (500)"),
        ([reported(message="hi there", code=503)], 3, "failed (503)"),
        ([reported(message="hi there", code=402)], 1, "refuses the request (402)"),
        (json_answer({"error": {"message": "hi there", "code": 401}}), 1, "MODEL_ENDPOINT_TOKEN"),
        ([event("i bake"), reported(code=500)], 1, "what arrived is kept"),
        ([event(None), b"data: {no json\n\n"], 3, "broke off before it answered"),
        ((400, {}, [json.dumps({"error": FILTERED}).encode()]), 1, "withholds its answer"),
        ([reported(**FILTERED)], 1, "withholds its answer"),
        (PAGE, 1, "not like a server of models"),
        (json_answer({"choices": 3}), 1, "not like a server of models"),
        (308, 1, "elsewhere (308)"),
        (402, 1, "check --endpoint, --model and the account"),
        (405, 1, "check --endpoint, --model and the account"),
        (410, 1, "check --endpoint, --model and the account"),
        (408, 1, "try again in a moment"),
    ],
)
def test_each_error_has_its_sentence(peer, answer, asked, words):
    peer.script = [answer] * 3
    assert words in outcome(ask(peer)) and len(peer.bodies) == asked


@pytest.mark.parametrize(
    "refusal",
    [
        [reported(message="The number of tokens exceeds the context length")],
        [reported(message="the prompt has too many tokens", code=500)],
        (500, {}, [b'{"error": {"message": "context size exceeded"}}']),
    ],
)
def test_turns_are_dropped_however_the_server_says_that_they_do_not_fit(peer, refusal):
    peer.script = [
        lambda body: refusal if len(body["messages"]) > 5 else [event("bread"), STOP, DONE]
    ] * 12
    reply = ask(peer, [f"turn {k}" for k in range(11)])
    assert (outcome(reply), reply.dropped_turns) == ("bread", 8)


def test_a_page_in_place_of_a_list_of_models_is_told(peer):
    peer.models = [b"\n<!doctype html><title>log in</title>"]
    assert "not like a server of models" in Endpoint(peer.url).problem


@pytest.mark.parametrize("model", [None, "mine"])
def test_a_redirect_is_told_at_the_start(peer, model):
    peer.models = 307
    assert "elsewhere (307)" in Endpoint(peer.url, model).problem


@pytest.fixture
def certificate(tmp_path):
    paths = [tmp_path / "key.pem", tmp_path / "certificate.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
        + ["-keyout", str(paths[0]), "-out", str(paths[1])],
        check=True,
        capture_output=True,
        timeout=100,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths[1], paths[0])
    return context


def refuse(plain: socket.socket) -> None:
    """What a server of http says to whoever speaks https."""
    connection, _ = plain.accept()
    with connection:
        connection.recv(1_000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes the certificate")
def test_https_that_is_not_trusted_and_http_in_its_place(peer, certificate):
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(target=refuse, args=(plain,), daemon=True).start()
        told = Endpoint(f"https://127.0.0.1:{plain.getsockname()[1]}", "mine").problem
    assert "does not speak https" in told
    secure = peer.url.replace("http:", "https:")
    peer.socket = certificate.wrap_socket(
        peer.socket, server_side=True, do_handshake_on_connect=False
    )
    assert "SSL_CERT_FILE" in Endpoint(secure, "mine").problem
    assert "https://" in Endpoint(peer.url, "mine").problem
