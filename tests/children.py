"""Children of the tests: each a process and a group of its own that is gone at the end of its block, and soon after the
test process, however that ends; every wait has a limit.

`program` runs a command, `child` a function that may be killed at any moment. The latter are made by a server
(`multiprocessing`'s forkserver) that was started anew and only imported what the jobs need, so they start in an instant
and share nothing with the process of the tests: no lock, no file, no thread.
"""

import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from typing import Any

LIMIT = 120.0  # seconds that a child may take at most

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["tests.children", "tests.sft_tiny", "tests.convai_data", "train.recipes.convai"]
)

# told "+GROUP" and "-GROUP" by the test process, with whose end its input ends: what is still there then is killed
WATCHER = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


@functools.cache
def _watcher() -> subprocess.Popen:
    """One process that outlives this one."""
    command = [sys.executable, "-S", "-E", "-c", WATCHER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)


@contextlib.contextmanager
def _watched(group: int) -> Iterator[None]:
    _watcher().stdin.write(b"+%d\n" % group)
    try:
        yield
    finally:
        _watcher().stdin.write(b"-%d\n" % group)


@contextlib.contextmanager
def program(command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
    """A running command; it and all that it started are gone at the end of the block."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    with _watched(process.pid):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
            process.wait(LIMIT)


@contextlib.contextmanager
def child(job: Callable[..., object], *arguments: object) -> Iterator[ForkServerProcess]:
    """A child that runs `job(*arguments)`, both of which must be picklable; it is gone at the end of the block."""
    process = _server.Process(target=_run, args=(job, *arguments))
    process.start()
    with _watched(process.pid):
        try:
            yield process
        finally:
            kill(process)
            process.join(LIMIT)


def kill(process: ForkServerProcess) -> None:
    """Ends the child and all that it started, if it still runs."""
    if process.exitcode is not None:  # its number may belong to another process by now
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)  # it may not lead its group yet
        os.killpg(process.pid, signal.SIGKILL)


def ended(process: ForkServerProcess) -> int:
    """The child's exit status, minus the signal that ended it; a child that does not end fails the test."""
    process.join(LIMIT)
    assert process.exitcode is not None, f"the child still runs after {LIMIT:.0f} seconds"
    return process.exitcode


def status_of(job: Callable[..., object], *arguments: object) -> int:
    with child(job, *arguments) as process:
        return ended(process)


def _run(job: Callable[..., object], *arguments: object) -> None:
    os.setsid()
    # what the job prints is of no interest, not even that it was killed
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    from tqdm import tqdm

    # tqdm's own lock is shared with the server: a child killed while it draws would hold it for ever
    tqdm.set_lock(threading.RLock())
    gc.freeze()  # see tests/conftest.py
    job(*arguments)
