"""Behind a proxy the page still finds itself. Run: `python -m pytest tests/persona_bot/test_proxies.py`"""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from persona_bot.proxies import PROXIES, spare_loopback

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
    assert os.environ["no_proxy"] == "localhost,127.0.0.1,::1"
    assert os.environ["NO_PROXY"].split(",")[0] == "example.org"
    assert os.environ["NO_PROXY"].count("127.0.0.1") == 1


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
