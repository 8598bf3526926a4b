"""The page under attack: `python app.py` as a process of its own, with a home and a folder for temporary files that are watched."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parent.parent
START_SECONDS = 180.0


class Target:
    def __init__(self, process: subprocess.Popen, url: str, folder: Path):
        self.process, self.url, self.folder = process, url, folder
        self._watched = psutil.Process(process.pid)

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        """Another address is another client to the page; all of 127.0.0.0/8 is this machine."""
        transport = httpx.HTTPTransport(local_address=address)
        return httpx.Client(base_url=self.url, transport=transport, timeout=60)

    def functions(self, unqueued: bool = False) -> list[tuple[int, int]]:
        """(number of a function of the page, how many inputs it takes); perhaps only those that are called directly."""
        with self.client() as client:
            found = client.get("/config").json()["dependencies"]
        direct = [d for d in found if d["backend_fn"] and not (unqueued and d["queue"])]
        return [(d["id"], len(d["inputs"])) for d in direct]

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def memory_mb(self) -> float:
        return self._watched.memory_info().rss / 1e6

    def descriptors_and_threads(self) -> tuple[int, int]:
        return self._watched.num_fds(), self._watched.num_threads()

    def files(self) -> set[tuple[str, int]]:
        """Every file that the page could have written: (path, size)."""
        found = set()
        for top in (self.folder / "home", self.folder / "tmp", ROOT):
            for folder, below, names in os.walk(top):
                if top == ROOT:  # what tools keep beside the sources, while tests run too
                    below[:] = [name for name in below if name[0] != "." and name != "__pycache__"]
                for file in (Path(folder) / name for name in names):
                    with contextlib.suppress(FileNotFoundError):  # somebody else's, gone again
                        found.add((str(file), file.stat().st_size))
        return found


def end_on_sigterm() -> None:
    """So that the page ends, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextlib.contextmanager
def opened(model: str | None, *options: str) -> Iterator[Target]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--host", "127.0.0.1", "--port", str(port), *options]
    command += ["--model", model] if model else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        (folder / "home").mkdir()
        places = {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home")}
        quiet = {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **places, **quiet},
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        target = Target(process, f"http://127.0.0.1:{port}", folder)
        try:
            wait_until_ready(target)
            yield target
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def wait_until_ready(target: Target) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and target.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(target.url + "/healthz", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"The page did not open:\n{target.log()[-2_000:]}")
