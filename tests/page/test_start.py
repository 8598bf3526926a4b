"""Starting and ending `python app.py` as a process of its own.

Run: `python -m pytest tests/page/test_start.py`
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from tests.children import program

ROOT = Path(__file__).parents[2]
# Ctrl-C as soon as a module is looked for
INTERRUPTED = """
import signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "{module}":
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""
LIMIT = 180.0  # seconds; a busy machine may take a tenth of them and more


@contextmanager
def start(*options: str, port: int, **settings: str) -> Iterator[subprocess.Popen]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MODEL_ID": ""}
    environment |= settings
    command = [
        sys.executable,
        "app.py",
        "--device",
        "cpu",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *options,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with program(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        yield process


def test_a_model_that_cannot_be_used_ends_the_start_with_one_line(free_port):
    with start("--model", "tests/data", port=free_port) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert len(errors.strip().splitlines()) == 1 and "Traceback" not in errors


def test_sigterm_lets_a_running_reply_finish_and_exits_0(chat_folder, free_port):
    with start("--model", str(chat_folder), port=free_port) as process:
        url = f"http://127.0.0.1:{free_port}/"
        wait_until_ready(url)
        client = Client(url, verbose=False, analytics_enabled=False)
        job = client.submit(
            ["i am a baker."], ["hi!"], min_tokens=50, max_tokens=150, api_name="/chat"
        )
        states = iter(job)
        first = next(states)
        process.send_signal(signal.SIGTERM)
        last = list(states)[-1]
        assert len(last) > len(first)
        output, errors = process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    assert "hi!" not in output + errors and last not in output + errors


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_ended_while_the_model_loads(free_port, told):
    with start(port=free_port) as process:
        # the page is there, the model most likely not
        assert process.stdout.readline() == f"http://127.0.0.1:{free_port}/\n"
        process.send_signal(told)
        output, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (0, "")


def test_the_page_goes_on_where_nobody_reads_what_it_prints(chat_folder, free_port, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "chat·é")
    options = {"port": free_port, "PYTHONIOENCODING": "ascii"}
    with start("--model", str(folder), **options) as process:
        process.stdout.close()  # before its first line
        url = f"http://127.0.0.1:{free_port}/"
        wait_until_ready(url)
        client = Client(url, verbose=False, analytics_enabled=False)
        assert client.predict(["i am a baker."], ["hi!"], api_name="/chat")
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == ""
        assert process.wait(LIMIT) == 0


def test_letters_that_its_output_lacks_are_replaced(chat_folder, free_port, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "chat·é")
    options = {"port": free_port, "PYTHONIOENCODING": "ascii"}
    with start("--model", str(folder), **options) as process:
        assert process.stdout.readline() == f"http://127.0.0.1:{free_port}/\n"
        assert process.stdout.readline() == "Ready: chat?? on CPU.\n"


@pytest.mark.parametrize(
    ("program", "module", "status"),
    [(["app.py"], "page.options", 0), (["-m", "persona_bot"], "persona_bot.persona", 130)],
)
def test_ctrl_c_among_the_imports_is_silent(program, module, status, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED.format(module=module))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_a_port_that_is_taken_is_told(free_port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        with start(port=free_port) as process:
            _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert errors.splitlines() == [
        f"The page cannot listen at 127.0.0.1, port {free_port}; try another --host or --port."
    ]


def wait_until_ready(url: str, seconds: float = LIMIT) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if httpx.get(url + "healthz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        threading.Event().wait(0.1)
    raise AssertionError("the page did not become ready")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
