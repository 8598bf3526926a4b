"""A small Hugging Face Hub on 127.0.0.1 for the real `huggingface_hub` client: accounts, repositories, commits, LFS, downloads, faults.

    hub.put("user/name", {"config.json": b"{}"})            a repository with one commit; private=, gated=, kind="space"
    hub.head("user/name").files["config.json"].data         what was published
    hub.fault("POST .*/commit/", status=503, times=1)       the next such request fails; see Fault
    hub.requests                                            every request that arrived: method, path, host, headers

LFS files come from a second address, "localhost" instead of "127.0.0.1", as the real Hub sends them from another host.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants

from tests.hub_pages import LARGE, Blob, Commit, Pages, Refused, Repo


class Request(NamedTuple):
    method: str
    path: str
    host: str
    headers: dict[str, str]


@dataclass
class Fault:
    """What goes wrong for a request whose "METHOD /path" matches: one of the kinds below, `times` times."""

    match: str
    times: int = 1
    status: int = 0  # this answer instead of the real one, with `headers` and `body`
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "planned"}'
    hang: bool = False  # no answer at all; with cut="after" the request is carried out all the same
    # "before" the request is carried out, "after" (carried out, no answer), "body" (half of the
    # answer)
    cut: str = ""
    # is called first, for what happens elsewhere at that moment
    also: Callable[[], object] | None = None
    # "byte": one byte flipped, "size": one byte less in the body than the files' list says
    change: str = ""


class Hub(ThreadingHTTPServer):
    """Starts on entering, stops on leaving; state is plain attributes, so that a test can look and change."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.cdn = f"http://localhost:{self.server_port}"
        self.users = {
            "token-writer": {"name": "user", "role": "write"},
            "token-reader": {"name": "user", "role": "read"},
        }
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.verify_at = self.url  # where LFS uploads are told to be confirmed
        self.busy, self.counting = 0, threading.Lock()  # requests in progress
        self.over = threading.Event()

    def __enter__(self):
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        pass  # a client that gave up is what the tests are about

    def count(self, change: int):
        with self.counting:
            self.busy += change

    def wait_until_idle(self):
        while self.busy:
            time.sleep(0.01)

    def put(self, name: str, files: dict[str, bytes], kind: str = "model", **fields) -> Commit:
        repo = self.repos.setdefault((kind, name), Repo(**fields))
        return repo.commit(
            "put", {path: Blob(data, path.endswith(LARGE)) for path, data in files.items()}
        )

    def head(self, name: str, kind: str = "model") -> Commit:
        return self.repos[kind, name].commits[-1]

    def fault(self, match: str, **fields) -> Fault:
        self.faults.append(Fault(match, **fields))
        return self.faults[-1]


def use(hub: Hub, monkeypatch, folder) -> None:
    """Points the real client in this process at `hub`, with an empty cache and no token."""
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_TOKEN_PATH": str(folder / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or each answer takes 40 ms
    disable_nagle_algorithm = True
    server: Hub

    def handle_any(self):
        self.server.count(1)
        try:
            self.handle_one()
        finally:
            self.server.count(-1)

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, path, self.headers["Host"], headers))
        fault = self.take_fault(f"{self.command} {path}")
        if fault.also:
            fault.also()
        if (fault.hang and not fault.cut) or fault.cut == "before":
            return self.hang_up(after=30 * fault.hang)
        try:
            if fault.status:
                status, headers, body = fault.status, fault.headers, fault.body
            else:
                status, headers, body = Pages(self.server, self.command, self.headers, body).answer(
                    path
                )
        except Refused as no:
            headers = {"X-Error-Code": no.code, "X-Error-Message": no.message}
            status, body = no.status, json.dumps({"error": no.message}).encode()
        if fault.cut == "after":
            return self.hang_up(after=30 * fault.hang)
        if fault.change and body:
            body = body[:-1] if fault.change == "size" else bytes([body[0] ^ 1]) + body[1:]
        self.reply(status, headers, body, half=fault.cut == "body")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def take_fault(self, request: str) -> Fault:
        for fault in self.server.faults:
            if fault.times > 0 and re.search(fault.match, request):
                fault.times -= 1
                return fault
        return Fault("")

    def hang_up(self, after: float = 0):
        self.server.over.wait(after)
        self.close_connection = True
        self.connection.shutdown(2)

    def reply(self, status: int, headers: dict, body: bytes, half: bool = False):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.wfile.flush()
            time.sleep(0.01)  # or the half that was written could be lost as well
            self.hang_up()

    def log_message(self, *_):
        pass
