"""Loading from a Hub that fails: each kind of answer, while listing and while downloading, with a cached copy and without.

Run: python -m pytest tests/persona_bot/test_checkpoint_hub_faults.py
"""
# ruff: noqa: F811 (the fixture of test_checkpoint_hub.py)

import errno
import hashlib
import os
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from persona_bot.checkpoints import hub as hub_client
from persona_bot.checkpoints.hub import fetch
from tests.persona_bot.test_checkpoint_hub import PATIENT, TINY, hub, refusal  # noqa: F401

# -- faults of the Hub: the list of files, then the download itself

FAULTS = {
    "401": ({"status": 401}, "has no model user/model, or it is private (401)"),
    "403": ({"status": 403}, "denies access to user/model (403)"),
    "404": ({"status": 404}, "has no model user/model, or it is private (404)"),
    "418": ({"status": 418}, "refused to send user/model (418)"),
    "429": (
        {"status": 429, "headers": {"Retry-After": "300"}},
        "too many requests from here (429)",
    ),
    "500": ({"status": 500}, "has a fault (500)"),
    "503": ({"status": 503, "body": b"<html>maintenance</html>"}, "has a fault (503)"),
    "hang": ({"hang": True}, "stopped answering"),
    "cut": ({"cut": "before"}, "cannot be reached"),
    "cut in the middle": ({"cut": "body"}, "cannot be reached"),
    "a login page": (
        {"status": 200, "body": b"<html>Welcome to our airport</html>"},
        "does not answer like a Hub",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_while_listing(hub, fault):
    fields, cause = FAULTS[fault]
    hub.put("user/model", TINY)
    hub.fault("GET /api/models/", times=99, **fields)
    assert cause in refusal("user/model")


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_while_listing_with_a_cache(hub, fault, caplog):
    hub.put("user/model", TINY)
    folder = fetch("user/model")
    hub.fault("GET /api/models/", times=99, **FAULTS[fault][0])
    started = time.monotonic()
    assert fetch("user/model") == folder
    assert time.monotonic() - started < PATIENT + 1
    assert (
        FAULTS[fault][1] in caplog.text and caplog.text.count("The copy in the cache serves.") == 1
    )


@pytest.mark.parametrize("fault", ["429", "500", "cut"])
def test_a_passing_fault_passes(hub, fault):
    hub.put("user/model", TINY)
    hub.fault("GET /api/models/", times=2, **FAULTS[fault][0])
    assert (fetch("user/model") / "model.safetensors").read_bytes() == TINY["model.safetensors"]


DOWNLOAD_FAULTS = {
    "403": ({"status": 403}, "denies access to user/model (403)"),
    "404": ({"status": 404}, "has no model user/model, or it is private (404)"),
    "429": (
        {"status": 429, "headers": {"Retry-After": "300"}},
        "too many requests from here (429)",
    ),
    "500": ({"status": 500}, "has a fault (500)"),
    "hang": ({"hang": True}, "stopped answering"),
    "cut": ({"cut": "before"}, "stopped answering"),
    "wrong size": ({"change": "size"}, "did not arrive whole"),
    "wrong bytes": ({"change": "byte"}, "model.safetensors of user/model arrived damaged twice"),
}


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
def test_fault_while_downloading(hub, fault):
    fields, cause = DOWNLOAD_FAULTS[fault]
    hub.put("user/model", TINY)
    hub.fault("GET /lfs/", times=99, **fields)
    assert cause in refusal("user/model")
    # nothing half or false is left to be found
    assert not list(Path(constants.HF_HUB_CACHE).rglob("model.safetensors"))


@pytest.mark.parametrize("fault", ["403", "404", "429", "500", "hang"])
def test_fault_while_asking_for_a_file(hub, fault):
    fields, cause = DOWNLOAD_FAULTS[fault]
    hub.put("user/model", TINY)
    hub.fault("HEAD .*/resolve/", times=99, **fields)
    assert cause in refusal("user/model")


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
def test_fault_while_downloading_an_update(hub, fault):
    hub.put("user/model", TINY)
    folder = fetch("user/model")
    hub.put("user/model", {**TINY, "model.safetensors": b"better " * 5000})
    hub.fault("GET /lfs/", times=99, **DOWNLOAD_FAULTS[fault][0])
    if fault == "wrong bytes":
        assert "arrived damaged twice" in refusal("user/model")
    else:
        assert fetch("user/model") == folder


def test_a_cut_download_goes_on_where_it_stopped(hub):
    hub.put("user/model", {**TINY, "model.safetensors": bytes(200_000)})
    hub.fault("GET /lfs/", cut="body")
    assert (fetch("user/model") / "model.safetensors").read_bytes() == bytes(200_000)
    parts = [
        request.headers.get("range")
        for request in hub.requests
        if request.method == "GET" and "/lfs/" in request.path
    ]
    assert parts[0] is None and re.fullmatch(r"bytes=[1-9]\d*-", parts[1])


def test_a_body_that_is_cut_forever_ends(hub):
    """Without ranges each attempt starts anew and brings bytes, which is no progress."""
    hub.put("user/model", {**TINY, "model.safetensors": bytes(200_000)})
    hub.fault("GET /lfs/", times=99, cut="body", status=200, body=bytes(200_000))
    assert "stopped answering" in refusal("user/model")


def test_a_file_that_is_long_to_hash_is_no_silent_hub(hub, monkeypatch):
    """On a clock of its own, on which each megabyte takes nearly as long as a silent Hub may."""
    now = 0.0

    class Slow:
        def __init__(self):
            self.digest = hashlib.sha256()

        def update(self, block):
            nonlocal now
            self.digest.update(block)
            now += 0.9 * PATIENT
            time.sleep(0.1)  # whoever waits looks at the clock

        def hexdigest(self):
            return self.digest.hexdigest()

    clock = SimpleNamespace(monotonic=lambda: now, sleep=time.sleep)
    monkeypatch.setattr(hub_client, "time", clock)
    slow = SimpleNamespace(sha256=Slow, sha1=hashlib.sha1)
    monkeypatch.setattr(hub_client, "hashlib", slow)
    weights = bytes(3 << 20)
    hub.put("user/model", {**TINY, "model.safetensors": weights})
    assert (fetch("user/model") / "model.safetensors").read_bytes() == weights
    assert now > 2 * PATIENT


def test_an_abandoned_download_asks_for_nothing_more(hub):
    """It shares the client's connections with whatever comes next."""
    hub.put("user/model", TINY)
    hub.fault("GET /lfs/", times=99, cut="before")
    before = set(threading.enumerate())
    assert "stopped answering" in refusal("user/model")
    asked = len(hub.requests)
    for thread in set(threading.enumerate()) - before:
        if thread.name.endswith("(work)"):
            thread.join(30)
            assert not thread.is_alive()
    assert len(hub.requests) == asked


# -- a cache that takes nothing


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOTDIR, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_told_with_its_cure(hub, monkeypatch, number):
    hub.put("user/model", TINY)

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "makedirs", refuse)  # where the client begins to write
    told = f"{constants.HF_HUB_CACHE} cannot be written to ({os.strerror(number)}); set HF_HOME to"
    assert told in refusal("user/model")


def test_a_cache_below_a_file_is_told(hub, monkeypatch, tmp_path):
    hub.put("user/model", TINY)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    assert "hub cannot be written to (Not a directory); set HF_HOME to" in refusal("user/model")
