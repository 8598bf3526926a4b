"""train/data/personachat.py against a server of the test's own: cut and resumed, refused, hanging, another file than expected."""

import http.server
import json
import re
import threading
import time

import pytest

from persona_bot.errors import UserError
from train.data.personachat import fetch_personachat

ENTRY = {
    "personality": ["i sail."],
    "utterances": [{"history": ["hi"], "candidates": ["no", "ahoy"]}],
}
BODY = json.dumps({"train": [ENTRY] * 300, "valid": [ENTRY] * 2}).encode()
COUNTS = {"train": (300, 300), "valid": (2, 2)}


class Server(http.server.ThreadingHTTPServer):
    """Answers request number k with the k-th of `plan`, the last of them for ever; `seen` keeps each request's Range."""

    def __init__(self, *plan, body=BODY, ranges=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.body, self.ranges, self.seen = plan, body, ranges, []
        self.closing = threading.Event()

    def __enter__(self):
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/personachat.json"
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        act = server.plan[min(len(server.seen), len(server.plan) - 1)]
        server.seen.append(self.headers.get("Range"))
        if isinstance(act, int):  # an error status
            self.send_error(act)
            return
        if act == "hang":
            server.closing.wait(20)
            return
        start = (
            int(self.headers["Range"][6:-1]) if self.headers.get("Range") and server.ranges else 0
        )
        if start >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}"
            )
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        cut = {"cut": 5000, "none": 0, "stall": 5000}.get(act, len(rest))
        self.wfile.write(rest[:cut])
        self.wfile.flush()
        if act == "stall":
            server.closing.wait(20)

    def log_message(self, *_):
        pass


def fetch(server, folder, **options):
    return fetch_personachat(
        folder, url=server.url, counts=COUNTS, pause=0.0, **{"stall": 5.0, **options}
    )


def refusal(server, folder, **options) -> str:
    with pytest.raises(UserError) as caught:
        fetch(server, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_fetched_once_and_kept_as_it_came(tmp_path):
    with Server("whole") as server:
        path = fetch(server, tmp_path / "new" / "cache")
        assert path.read_bytes() == BODY
        assert fetch(server, tmp_path / "new" / "cache") == path
        assert server.seen == [None]
    assert [p.name for p in path.parent.iterdir()] == ["personachat_self_original.json"]


def test_cut_connections_are_resumed_where_they_were_cut(tmp_path):
    with Server("cut", 503, "cut", "none", "whole") as server:
        assert fetch(server, tmp_path).read_bytes() == BODY
        assert server.seen == [None, "bytes=5000-", "bytes=5000-", "bytes=10000-", "bytes=10000-"]


def test_a_later_call_goes_on_from_what_came(tmp_path):
    with Server("cut", "none") as server:
        message = refusal(server, tmp_path)
        assert (
            message
            == "The download stopped at 0.0 MB because the connection was cut; run it again, it goes on from there."
        )
        assert len(server.seen) == 4, "one with bytes, three without"
    with Server("whole") as server:
        assert fetch(server, tmp_path).read_bytes() == BODY
        assert server.seen == ["bytes=5000-"]


def test_a_server_that_cannot_resume_starts_again(tmp_path):
    (tmp_path / "personachat_self_original.part").write_bytes(b"old and long " * 5)
    with Server("whole", ranges=False) as server:
        assert fetch(server, tmp_path).read_bytes() == BODY


def test_a_part_that_is_whole_already_is_only_checked(tmp_path):
    (tmp_path / "personachat_self_original.part").write_bytes(BODY)
    with Server("whole") as server:
        assert fetch(server, tmp_path).read_bytes() == BODY
        assert server.seen == [f"bytes={len(BODY)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path):
    (tmp_path / "personachat_self_original.part").write_bytes(BODY + b"more")
    with Server("whole") as server:
        assert fetch(server, tmp_path).read_bytes() == BODY
        assert server.seen == [f"bytes={len(BODY) + 4}-", None]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(tmp_path, status):
    with Server(status) as server:
        assert f"answers {status}" in refusal(server, tmp_path)
        assert len(server.seen) == 1


def test_a_sick_server_is_tried_three_times(tmp_path):
    with Server(503) as server:
        assert "because the server answers 503;" in refusal(server, tmp_path)
        assert len(server.seen) == 3


@pytest.mark.parametrize("act", ["hang", "stall"])
def test_a_hanging_server_ends_in_time(tmp_path, act):
    with Server(act) as server:
        start = time.monotonic()
        told = refusal(server, tmp_path, stall=0.1, deadline=0.5)
        # which of both a busy machine comes to first
        assert re.search(r"because the (server stopped answering|time for it was over);", told)
        assert time.monotonic() - start < 30


def test_nobody_listening_is_one_sentence(tmp_path):
    with Server("whole") as server:
        pass
    assert "because the network failed (" in refusal(server, tmp_path)


@pytest.mark.parametrize(
    "body, reason",
    [
        (
            json.dumps({"train": [ENTRY] * 299, "valid": [ENTRY] * 2}).encode(),
            "it has {'train': (299, 299)",
        ),
        (BODY[:-1], "it is not whole Persona-Chat JSON"),
        (b"<html>Please log in</html>", "it is not whole Persona-Chat JSON"),
        (b'{"train": [1]}', "it is not whole Persona-Chat JSON"),
        (b'{"train": [{}]}', "it is not whole Persona-Chat JSON"),
    ],
)
def test_another_file_is_thrown_away(tmp_path, body, reason):
    with Server("whole", body=body) as server:
        assert refusal(server, tmp_path).startswith(
            f"The downloaded Persona-Chat file was thrown away because {reason}"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with Server("whole") as server:
        assert "cannot hold the download (Not a directory)" in refusal(
            server, tmp_path / "file" / "cache"
        )
        assert server.seen == []
