"""What the terminal chat reads from and writes to: terminals, pipes, files, and nothing at all.

Run: `python -m pytest tests/persona_bot/test_terminal_streams.py`
"""

import os
import subprocess
import sys

import pytest

from tests.children import program
from tests.endpoint_peer import DONE, event
from tests.persona_bot.test_terminal import read_until

ANSWER = [event("i bake."), event("", "stop"), DONE]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell and a pseudo terminal")


def command(peer, persona: str = "soldier") -> list[str]:
    peer.script = [ANSWER]
    return [sys.executable, "-m", "persona_bot", "--endpoint", peer.url, "--persona", persona]


@posix
@pytest.mark.parametrize(
    ("closed", "said"), [("<&-", ""), (">&-", ""), ("2>&-", "🪖 i bake.\n"), ("", "🪖 i bake.\n")]
)
def test_a_stream_that_is_closed_is_one_that_holds_nothing(peer, closed, said):
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command(peer)],
        input="hi\n", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, said) and "Traceback" not in done.stderr


@posix
def test_the_prompt_is_not_among_the_replies_that_go_elsewhere(peer):
    import pty

    parent, child = pty.openpty()
    pipes = {"stdin": child, "stdout": subprocess.PIPE, "stderr": child}
    with program(command(peer), **pipes) as running:
        os.close(child)
        read_until(parent, "you: ")
        os.write(parent, b"hello\n")
        read_until(parent, "you: ")
        os.write(parent, b"\x04")  # Ctrl-D
        assert running.wait(timeout=120) == 0
        assert running.stdout.read().decode() == "🪖 i bake.\n"
    os.close(parent)


@posix
def test_a_persona_may_come_through_a_pipe(peer):
    reader, writer = os.pipe()
    os.write(writer, b"# \xf0\x9f\xa5\x96 Ann\ni bake.\n")
    os.close(writer)
    done = subprocess.run(
        command(peer, f"/dev/fd/{reader}"), pass_fds=[reader],
        input="hi\n", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    os.close(reader)
    assert done.stdout == "🥖 i bake.\n" and "\n🥖 Ann\ni bake.\n" in done.stderr
