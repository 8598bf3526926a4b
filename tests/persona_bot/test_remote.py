"""A model behind HTTP: against a server of the test's own that streams what it is told to, and against `transformers serve`.

Run: `python -m pytest tests/persona_bot/test_remote.py`
"""

import io
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import persona_bot.replies.remote
import persona_bot.replies.request
from page import backend, middleware
from persona_bot.__main__ import main
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from persona_bot.replies.openai_protocol import base_address, messages
from persona_bot.replies.remote import Endpoint
from persona_bot.settings import Settings
from tests.children import program
from tests.conftest import save
from tests.endpoint_peer import DONE, Peer, event

BAKER = Persona("Baker", ("i am a baker .",))
REFUSED_FIELDS = {
    "stream_options",
    "chat_template_kwargs",
    "top_k",
    "min_tokens",
    "repetition_penalty",
    "repeat_penalty",
}


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.shutdown()
    peer.server_close()


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(persona_bot.replies.request, "PAUSES", (0.0, 0.0))


def ask(peer, turns=("hi there",), **settings):
    return Endpoint(peer.url).reply(BAKER, turns, Settings(**settings))


def failure_of(reply) -> str:
    with pytest.raises(UserError) as caught:
        list(reply)
    assert "hi there" not in str(caught.value)
    return str(caught.value)


def test_a_reply_arrives_in_pieces_with_the_counters_of_the_local_one(peer):
    usage = {"prompt_tokens": 30, "completion_tokens": 9}
    last = b'data: {"choices": [], "usage": ' + json.dumps(usage).encode() + b"}\n\n"
    peer.script = [
        [event(" i"), 0.05, event(" bake "), event("bread."), event(None, "stop"), last, DONE]
    ]
    reply = ask(
        peer,
        ("hi !", "hello .", "who are you ?"),
        temperature=0.5,
        top_p=1,
        top_k=7,
        max_tokens=50,
        seed=3,
    )
    assert [piece for piece in reply if piece] == ["i", " bake", " bread."]
    assert (
        reply.text,
        reply.finish_reason,
        reply.num_tokens,
        reply.prompt_tokens,
        reply.dropped_turns,
    ) == ("i bake bread.", "stop", 9, 30, 0)
    assert 0 < reply.first_text_seconds < reply.seconds
    (path, body), *others = peer.bodies
    assert (path, others) == ("/v1/chat/completions", [])
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert (
        body["messages"][0]["content"].endswith("Your persona:\ni am a baker.")
        and body["messages"][1]["content"] == "hi!"
    )
    expected = {
        "model": "tiny/baker",
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.999,
        "top_k": 7,
        "max_tokens": 50,
        "seed": 3,
    }
    assert expected.items() <= body.items() and body["min_tokens"] == 3


def test_odd_chunks_of_a_stream(peer):
    whole = event("na\u2028ïve 🌱") + event("", "stop")
    role = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\r\n\r\n'
    odd = [
        b": keep-alive\n\n",
        b"event: message\nid: 1\n",
        role,
        event(""),
        event(None),
        b'data:{"choices":[]}\n\n',
    ]
    halves = [
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ude00!"}}]}\n\n',
    ]
    bytewise = [part for byte in whole for part in (bytes([byte]), 0.001)]
    peer.script = [[*odd, *halves, *bytewise, DONE]]
    reply = ask(peer)
    pieces = [piece for piece in reply if piece]
    assert ("".join(pieces), reply.text, pieces[0], reply.finish_reason) == (
        "😀!na\u2028ïve 🌱",
        "😀!na\u2028ïve 🌱",
        "😀!",
        "stop",
    )


def test_a_reply_ends_although_the_server_keeps_the_line_open(peer):
    peer.script = [[event("bread"), event("", "stop"), 3.0]]
    reply = ask(peer)
    assert ([p for p in reply if p], reply.finish_reason, reply.seconds < 2) == (
        ["bread"],
        "stop",
        True,
    )


@pytest.mark.parametrize(
    "text, shown",
    [("i bake", "i bake…"), ("i bake.", "i bake."), ('he said "no!"', 'he said "no!"')],
)
def test_a_reply_that_is_too_long_ends_with_dots_in_mid_sentence(peer, text, shown):
    peer.script = [[event(text), event("", "length"), DONE]]
    reply = ask(peer)
    assert ("".join(reply), reply.text, reply.finish_reason) == (shown, shown, "length")


def test_near_its_end_a_long_reply_stops_with_a_sentence(peer):
    peer.script = [
        [*(event(" a") for _ in range(10)), event("."), event(" b"), event("", "stop"), DONE]
    ]
    reply = ask(peer, max_tokens=20)
    assert ("".join(reply), reply.finish_reason) == ("a" + " a" * 9 + ".", "length")


def test_a_stop_ends_the_reply_and_closes_the_stream(peer):
    peer.script = [[event("i"), *[event(" bake"), 0.02] * 1500, DONE]]
    stop = threading.Event()
    reply = Endpoint(peer.url).reply(BAKER, ["hi"], Settings(), stop)
    assert next(filter(None, reply)) == "i"
    stop.set()
    began = time.monotonic()
    assert ([p for p in reply if p], reply.finish_reason, reply.text) == ([], "cancelled", "i")
    assert time.monotonic() - began < 0.5 and peer.left.wait(2)


def test_a_stop_is_seen_while_the_server_says_nothing(peer):
    peer.script = [[30.0]]
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    reply = Endpoint(peer.url).reply(BAKER, ["hi"], Settings(), stop)
    assert not any(reply) and (reply.finish_reason, reply.text) == ("cancelled", "")


def test_closing_a_reply_closes_the_stream(peer):
    peer.script = [[event("i"), *[event(" bake"), 0.02] * 1500, DONE]]
    reply = ask(peer)
    assert next(filter(None, reply)) == "i"
    reply.close()
    assert ([p for p in reply if p], peer.left.wait(2)) == ([], True)


def test_visitors_are_answered_at_the_same_time(peer):
    all_here = threading.Barrier(16, timeout=10)
    peer.script = [
        lambda body: (
            all_here.wait(30)
            and None
            or [event(body["messages"][1]["content"]), event("", "stop"), DONE]
        )
    ] * 16
    endpoint = Endpoint(peer.url)
    with ThreadPoolExecutor(16) as pool:
        texts = list(
            pool.map(lambda k: "".join(endpoint.reply(BAKER, [f"visitor {k}"])), range(16))
        )
    assert texts == [f"visitor {k}" for k in range(16)]


def test_the_deadline_keeps_what_there_is(peer):
    peer.script = [[event("i bake"), 30.0], [30.0]]
    reply = ask(peer, deadline=3.0)
    assert ("".join(reply), reply.finish_reason) == ("i bake", "deadline")
    assert "did not answer in time" in failure_of(ask(peer, deadline=0.3))


def test_the_busy_are_asked_again_until_text_came(peer, no_pauses):
    peer.script = [503, 429, [event("bread"), event("", "stop"), DONE]]
    assert "".join(ask(peer)) == "bread"
    assert len(peer.bodies) == 3
    peer.script = [
        [event(None)],
        [event("bre"), b"data: {no json\n\n"],
        [event("never asked"), DONE],
    ]
    reply = ask(peer)
    assert "broke off" in failure_of(reply)
    assert (reply.text, len(peer.script)) == ("bre", 1)


@pytest.mark.parametrize(
    "ending",
    [
        b"",
        b"data: {no json\n\n",
        b'data: {"error": {"message": "hi there"}}\n\n',
        b'data: {"choices": 3}\n\n',
        b"data: 1\n\n",
    ],
)
def test_a_stream_that_breaks_in_the_middle_keeps_what_arrived(peer, no_pauses, ending):
    peer.script = [[event("i bake"), ending]]
    reply = ask(peer)
    assert "broke off" in failure_of(reply)
    assert (reply.text, len(peer.bodies)) == ("i bake", 1)


@pytest.mark.parametrize(
    "status, asked, words",
    [
        (401, 1, "MODEL_ENDPOINT_TOKEN"),
        (403, 1, "MODEL_ENDPOINT_TOKEN"),
        (404, 1, "does not know tiny/baker"),
        (400, 5, "does not accept the request (400)"),
        (500, 1, "failed (500)"),
        (307, 1, "failed (307)"),
        (502, 3, "failed (502)"),
        (429, 3, "busy"),
    ],
)
def test_each_refusal_is_one_sentence_with_its_cure(peer, no_pauses, status, asked, words):
    peer.script = [status] * 5
    told = failure_of(ask(peer))
    assert words in told and told.count(".") == 1 and told.endswith(".")
    assert len(peer.bodies) == asked


def test_a_server_that_knows_openais_fields_only_is_asked_with_those(peer):
    strict = [
        lambda body: (
            422 if body.keys() & REFUSED_FIELDS else [event("bread"), event("", "stop"), DONE]
        )
    ] * 3
    peer.script = strict
    endpoint = Endpoint(peer.url)
    for _ in range(2):
        assert "".join(endpoint.reply(BAKER, ["hi"])) == "bread"
    assert [bool(body.keys() & REFUSED_FIELDS) for _, body in peer.bodies] == [True, False, False]


def test_turns_that_the_model_has_no_room_for_are_dropped(peer):
    peer.script = [
        lambda body: 400 if len(body["messages"]) > 5 else [event("bread"), event("", "stop"), DONE]
    ] * 9
    turns = [f"turn {k}" for k in range(11)]
    reply = ask(peer, turns)
    assert ("".join(reply), reply.dropped_turns) == ("bread", 8)
    sent = peer.bodies[-1][1]["messages"]
    assert [m["content"] for m in sent[1:]] == turns[8:] and sent[1]["role"] == "user"


def test_nothing_typed_becomes_a_control_token():
    sent = messages(
        Persona("", ("i am <|im_end|>.",)),
        ["<|im_start|>system [INST] </s> <3 \ud83d", "a < b [ok]", ""],
    )
    assert not any(token in m["content"] for m in sent for token in ("<|", "</s>", "[INST]"))
    assert (
        sent[1]["content"].endswith(" <3 ?")
        and sent[2]["content"] == "a < b [ok]"
        and sent[3]["content"] == ""
    )


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
    ],
)
def test_addresses_are_written_in_many_ways(written, read):
    assert str(base_address(written)) == read


@pytest.mark.parametrize(
    "written",
    [
        "localhost:8000",
        "ftp://h",
        "http://",
        "",
        "http://h:99999999",
        "http://u:secret@",
        "http://h/?a=1",
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


@pytest.fixture(scope="module")
def talker(chat_model, chat_tokenizer, tmp_path_factory) -> Path:
    """A folder with a tiny chat model whose likeliest tokens are plain letters, so that it never ends by itself."""
    torch.manual_seed(0)
    talker = LlamaForCausalLM(
        LlamaConfig(**{**chat_model.config.to_dict(), "tie_word_embeddings": False})
    ).eval()
    letters = torch.tensor(
        [
            chat_tokenizer.decode([i]).isalpha() and chat_tokenizer.decode([i]).isascii()
            for i in range(len(chat_tokenizer))
        ]
    )
    talker.lm_head.weight.data[~letters] = 0  # their logit; that of the likeliest letter is above
    return save(talker, chat_tokenizer, tmp_path_factory.mktemp("talker"))


@pytest.fixture(scope="module")
def served(talker, tmp_path_factory):
    """The address of `transformers serve` with that model."""
    pytest.importorskip("openai", reason="transformers serve needs it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).parent / "transformers",
        "serve",
        talker,
        "--port",
        str(port),
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    log = tmp_path_factory.mktemp("serve") / "log"
    with (
        log.open("w") as output,
        program(command, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        until = time.monotonic() + 120
        while not listens(port):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-2_000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"


def listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def test_transformers_serve_says_what_the_local_checkpoint_says(served, talker, environmentalist):
    turns = [
        "",
        "hello, how are you today?",
        "i am fine, thank you !",
        "i love the sea.",
        "what do you do for a living?",
    ]
    greedy = Settings(
        temperature=0, min_tokens=0, repetition_penalty=1, no_repeat_ngram=0, max_tokens=60
    )
    local = LocalModel.plain(load_checkpoint(str(talker), "cpu")).reply(
        environmentalist, turns, greedy
    )
    while local.num_tokens < 40:  # later the local one is drawn to the end of its sentence
        next(iter(local))
    remote = Endpoint(served, str(talker)).reply(environmentalist, turns, greedy)
    pieces = list(remote)
    assert len(local.text) > 40 and remote.text.startswith(local.text)
    assert (remote.finish_reason, remote.num_tokens, remote.prompt_tokens) == (
        "length",
        60,
        local.prompt_tokens,
    )
    assert len(pieces) > 10 and remote.first_text_seconds < remote.seconds


def test_transformers_serve_stops_where_the_reader_does(served, talker):
    endpoint, stop = Endpoint(served, str(talker)), threading.Event()
    reply = endpoint.reply(BAKER, ["hi"], Settings(max_tokens=200), stop)
    next(filter(None, reply))
    stop.set()
    assert ([p for p in reply if p], reply.finish_reason, 0 < reply.num_tokens < 200) == (
        [],
        "cancelled",
        True,
    )
    assert (endpoint.shape.fields, endpoint.problem) == ("basic", None)
    assert "does not accept the request (400)" in failure_of(
        Endpoint(served, "no/such").reply(BAKER, ["hi"])
    )
