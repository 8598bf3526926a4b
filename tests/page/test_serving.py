"""Whoever serves the page, it has its style, script, preview, checks and health.

Run: `python -m pytest tests/page/test_serving.py`
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import gradio as gr
import httpx
import pytest

from page import backend, preview, serving
from tests import children
from tests.page.test_start import ROOT, free_port, wait_until_ready  # noqa: F401

EMBEDDED = """
import gc
import importlib

import gradio as gr
import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient

gc.disable()  # the host's own business, as is what it freezes
import app
assert not gc.isenabled() and gc.get_freeze_count() == 0
gc.enable()
importlib.reload(app)
assert gc.isenabled()
from page import backend


def check(get, health):
    html = get("").text
    for part in ("personaPage", "--ground", "IBM Plex Sans"):
        assert part in html or part in get("theme.css").text, part
    assert 'property="og:title" content="Persona bot"' in html and 'content="Gradio"' not in html
    assert "default-src 'self'" in get("").headers["content-security-policy"]
    assert get("preview.png").headers["content-type"] == "image/png"
    assert get("upload").status_code in (403, 404)
    assert health().json() == {"status": "loading"} and health().status_code == 503


backend.promised.set()
_, url, _ = app.demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
check(lambda path: httpx.get(url + path), lambda: httpx.get(url + "healthz"))
app.demo.close(verbose=False)
parent = FastAPI()
gr.mount_gradio_app(parent, app.demo, path="/chat")
with TestClient(parent) as client:
    check(lambda path: client.get("/chat/" + path), lambda: client.get("/chat/healthz"))
print("served")
"""


def test_mounted_and_launched_by_others(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.stdout.endswith("served\n"), done.stderr[-2000:]


def test_gradio_reloads_the_page_and_keeps_the_model(chat_folder, free_port, tmp_path):  # noqa: F811
    program = Path(sys.executable).with_name("gradio")
    if not program.exists():
        pytest.skip("the gradio program is not beside this Python")
    product = copy_without_environment(tmp_path / "product")
    options = ["--model", str(chat_folder), "--host", "127.0.0.1", "--port", str(free_port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MODEL_ID": ""}
    command = [str(program), "app.py", "--", "--device", "cpu", *options]
    told = tmp_path / "output"
    with (
        told.open("w") as output,
        children.program(command, cwd=product, env=environment, stdout=output, stderr=output),
    ):
        url = f"http://127.0.0.1:{free_port}/"
        wait_until_ready(url)
        end = time.monotonic() + 60
        while "Changes detected" not in told.read_text():
            assert time.monotonic() < end, told.read_text()
            # again and again: what changes before the watcher's first look is no change
            os.utime(product / "app.py")
            time.sleep(2)
        wait_until_ready(url)
        assert "personaPage" in httpx.get(url).text
    assert "Traceback" not in told.read_text() and "failed with" not in told.read_text()


def copy_without_environment(folder: Path) -> Path:
    """The page's own files: Gradio's watcher looks at all below, `.venv` included, for a minute on a busy machine."""
    for name in ("page", "persona_bot", "persona_presets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app.py", folder)
    return folder


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({}, "http://127.0.0.1:7860/"),
        ({"x-forwarded-proto": "https", "host": "me.hf.space"}, "https://me.hf.space/"),
        ({"x-forwarded-proto": " HTTPS , http"}, "https://127.0.0.1:7860/"),
        ({"x-forwarded-proto": "javascript"}, "http://127.0.0.1:7860/"),
        ({"x-forwarded-proto": "\xff"}, "http://127.0.0.1:7860/"),
        ({"host": 'x"><script>'}, None),
    ],
)
def test_the_preview_names_the_visitors_own_address(headers, address):
    scope = {
        "type": "http", "scheme": "http", "path": "/", "query_string": b"", "server": ("127.0.0.1", 7860),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }  # fmt: skip
    tags = preview.tags(str(preview.address(scope))).decode()
    assert "<script" not in tags
    if address:
        assert f'property="og:image" content="{address}preview.png"' in tags
        assert f'property="og:url" content="{address}"' in tags


@pytest.mark.parametrize("value", ["1", "true"])
def test_gradios_debugging_does_not_keep_the_page_from_its_model(monkeypatch, value):
    monkeypatch.setenv("GRADIO_DEBUG", value)
    monkeypatch.setattr(backend, "promised", threading.Event())
    held_up = []
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda demo: held_up.append(demo))
    with gr.Blocks() as demo:
        pass
    (address,) = serving.launch(demo, "127.0.0.1")
    demo.close(verbose=False)
    assert address.startswith("http://127.0.0.1:") and held_up == []
