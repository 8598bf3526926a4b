"""A server of the OpenAI protocol, on loopback, that answers as a test tells it to."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from persona_bot.errors import UserError
from persona_bot.persona import Persona

DONE = b"data: [DONE]\n\n"
BAKER = Persona("Baker", ("i am a baker .",))


class Peer(ThreadingHTTPServer):
    """Answers each POST with the next of `script`: a status, or byte strings to send (a number among them is a
    pause), or (status, headers, byte strings), or a function of the request that gives one of these."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.script, self.bodies, self.tokens, self.headers = [], [], [], {}
        self.models = {"data": [{"id": "tiny/baker"}]}
        self.left = threading.Event()  # the client has closed a stream before its end
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.server.tokens.append(self.headers["Authorization"])
        models = self.server.models
        if isinstance(models, list):
            return self.stream(200, {}, models)
        self.answer(
            *((models, b"") if isinstance(models, int) else (200, json.dumps(models).encode()))
        )

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append((self.path, body))
        self.server.headers = self.headers  # of the last one
        step = self.server.script.pop(0)
        step = step(body) if callable(step) else step
        if isinstance(step, int):
            return self.answer(step, json.dumps({"error": f"refused: {body['messages']}"}).encode())
        status, headers, parts = step if isinstance(step, tuple) else (200, {}, step)
        self.stream(status, headers, parts)

    def stream(self, status: int, headers: dict, parts) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/event-stream", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for part in parts:
                time.sleep(part) if isinstance(part, float) else self.wfile.write(part)
        except OSError:
            self.server.left.set()


def event(text=None, finish=None, **more) -> bytes:
    choice = {
        "index": 0,
        "delta": {} if text is None else {"content": text},
        "finish_reason": finish,
    }
    return (
        b"data: " + json.dumps({"choices": [choice], **more}, ensure_ascii=False).encode() + b"\n\n"
    )


def failure_of(reply) -> str:
    """The sentence with which a reply to "hi there" ends; it repeats nothing of that."""
    with pytest.raises(UserError) as caught:
        list(reply)
    assert "hi there" not in str(caught.value)
    return str(caught.value)


def outcome(reply) -> str:
    """The text of a reply to "hi there", or the one sentence that it ends with."""
    try:
        return "".join(reply)
    except UserError as error:
        assert str(error).count(".") == 1 and "hi there" not in str(error)
        return str(error)
