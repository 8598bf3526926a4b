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
# what would lead the page's files out of sight
ELSEWHERE = ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "XDG_CACHE_HOME")
PLACES = ("work", "home", "tmp")  # the page's own working folder, home and temporary files
SOURCES = (ROOT / "page", ROOT / "persona_bot")  # nobody else writes there


class Target:
    def __init__(self, pid: int, url: str, folder: Path):
        self.url, self.folder = url, folder
        self._watched = psutil.Process(pid)

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

    def files(self) -> set[tuple[str, int, int]]:
        """All files and folders that the page could write to: (path, size, time of the last change in ns).

        A file that comes and goes again between two looks leaves its folder changed.
        """
        found = set()
        places = [self.folder / place for place in PLACES]
        if (
            "HF_HOME" in os.environ
        ):  # its weights may be used, so that a start need not make them ready
            places.append(Path(os.environ["HF_HOME"]))
        for top in (*places, *SOURCES):
            for folder, below, names in os.walk(top):
                below[:] = [name for name in below if name != "__pycache__"]
                # Python keeps what it compiled beside the sources, so their folders do change
                itself = [] if top in SOURCES else [folder]
                for path in itself + [os.path.join(folder, name) for name in names]:
                    with contextlib.suppress(FileNotFoundError):  # gone since the folder was read
                        state = os.stat(path)
                        found.add((path, state.st_size, state.st_mtime_ns))
        return found

    def changed(self, before: set[tuple[str, int, int]]) -> list[str]:
        """What was written, made or removed since `before`, the answer of `files`."""
        return sorted({path for path, *_ in before ^ self.files()})


def end_on_sigterm() -> None:
    """So that the page ends, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextlib.contextmanager
def opened(model: str | None, *options: str) -> Iterator[Target]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        str(ROOT / "app.py"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *options,
    ]
    if model:
        command += ["--model", os.path.abspath(model) if os.path.exists(model) else model]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in PLACES:
            (folder / place).mkdir()
        places = {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home")}
        quiet = {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        inherited = {k: v for k, v in os.environ.items() if k not in ELSEWHERE}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=folder / "work", env={**inherited, **places, **quiet},
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        target = Target(process.pid, f"http://127.0.0.1:{port}", folder)
        try:
            wait_until_ready(process, target)
            yield target
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def wait_until_ready(process: subprocess.Popen, target: Target) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(target.url + "/healthz", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"The page did not open:\n{target.log()[-2_000:]}")
