"""Behind a proxy the page still finds itself. Run: `python -m pytest tests/persona_bot/test_proxies.py`"""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import httpx2
import pytest

from persona_bot.checkpoints.hub_errors import explain
from persona_bot.errors import UserError
from persona_bot.proxies import PROXIES, spare_loopback
from persona_bot.replies.remote import Endpoint
from train.hub.access import explain as explain_upload

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in (*PROXIES, "no_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.setenv(variable, "")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_loopback_is_spared_and_what_was_spared_stays(monkeypatch, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org, localhost")
    spare_loopback()
    spare_loopback()
    for name in ("no_proxy", "NO_PROXY"):
        assert os.environ[name] == "example.org,localhost,127.0.0.1,::1"


@pytest.mark.parametrize(
    "spared, read",
    [
        ("localhost,[::1]", "localhost,::1,127.0.0.1"),
        ("gpu-box, fe80::/10,10.0.0.0/8", "gpu-box,10.0.0.0/8,localhost,127.0.0.1,::1"),
        ("*.corp,[::1]:8000,a:b", "*.corp,localhost,127.0.0.1,::1"),
        ("*", "*,localhost,127.0.0.1,::1"),
    ],
)
def test_what_no_client_reads_is_not_spared(monkeypatch, spared, read):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", spared)
    spare_loopback()
    assert os.environ["no_proxy"] == read
    httpx.Client().close()
    httpx2.Client().close()


@pytest.mark.parametrize("variable", ["all_proxy", "HTTPS_PROXY"])
def test_a_socks_proxy_as_desktops_write_it(monkeypatch, variable):
    monkeypatch.setenv(variable, "socks://127.0.0.1:1080/")
    spare_loopback()
    assert os.environ[variable] == "socks5://127.0.0.1:1080/"
    httpx.Client().close()


@pytest.mark.parametrize(
    "variable, value",
    [
        ("http_proxy", "http://u:secret@proxy:port"),
        ("ALL_PROXY", "socks4://secret:1080"),
        ("HTTPS_PROXY", "http://"),
        ("SSL_CERT_FILE", "/secret/missing.pem"),
        ("SSL_CERT_FILE", __file__),
    ],
)
def test_what_no_client_can_be_made_with_is_told_by_its_name(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as caught:
        Endpoint("http://127.0.0.1:9")
    told = str(caught.value)
    assert told.startswith(f"{variable} ") and "secret" not in told and told.count(".") == 1
    assert explain(ValueError("Unknown scheme"), "user/x") == told
    assert explain_upload(ValueError("Unknown scheme"), "user/x") == told


def test_the_page_says_so_in_one_line():
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env={"http_proxy": "http://proxy:port", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("http_proxy is no proxy")


def test_without_a_proxy_nothing_is_set(monkeypatch):
    spare_loopback()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == ""


def test_a_socks_proxy_needs_nothing_more_than_the_requirements(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with httpx.Client() as client:
        assert client is not None


def test_the_rule_holds_before_gradio_is_imported():
    script = "import os, sys, page; print('gradio' in sys.modules, os.environ['NO_PROXY'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"http_proxy": "http://127.0.0.1:9", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "False localhost,127.0.0.1,::1\n", done.stderr[-500:]
