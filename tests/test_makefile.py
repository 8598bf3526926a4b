"""What the Makefile does where Python is not as it should be, with scripts in its place that install nothing.

Run: `python -m pytest tests/test_makefile.py`
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
OLD = "Python 3.10 or newer is needed, this is 3.9: make clean chat PYTHON=python3.12\n"
# `-m venv --clear FOLDER` makes an environment whose Python is this script, too, and prints what else it is asked for
PYTHON = """#!/bin/sh
case "$1 $2" in
"-c "*) exec {python} -c "import sys; sys.version_info = {version}; $2" ;;
"-m venv")
    rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"
    {ensurepip} || exit 1
    touch "$4/bin/pip" ;;
"-m pip") test -e .venv/bin/pip || exit 1 ;;
*) echo "opened with $0 $*" ;;
esac
"""

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.fixture
def make(tmp_path):
    """Runs `make chat` where nothing is set up yet, with a Python of some version, perhaps without ensurepip."""
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("requirements.txt", "constraints.txt"):
        (tmp_path / name).touch()

    def run(version: str = "(3, 12, 1)", ensurepip: bool = True) -> subprocess.CompletedProcess:
        python = tmp_path / "python"
        ready = "true" if ensurepip else "false"
        python.write_text(PYTHON.format(python=sys.executable, version=version, ensurepip=ready))
        python.chmod(0o755)
        # those of a `make test` that runs this would be obeyed, too
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        return subprocess.run(
            ["make", "chat", f"PYTHON={python}", "ARGS=--share"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


def opened(done: subprocess.CompletedProcess) -> bool:
    return done.stdout.endswith("opened with .venv/bin/python app.py --share\n")


def test_an_environment_that_was_not_finished_is_made_anew(make):
    assert make(ensurepip=False).returncode == 2
    done = make()
    assert opened(done) and done.returncode == 0, done.stderr
    assert "venv" not in make().stdout.replace(".venv", ""), "once is enough"


def test_a_python_that_is_too_old_is_told_and_leaves_nothing_behind(make, tmp_path):
    done = make("(3, 9, 18)")
    assert done.stderr.startswith(OLD) and done.returncode == 2
    assert not (tmp_path / ".venv").exists()
    assert opened(make())


def test_an_environment_of_a_python_that_is_too_old_is_told(make, tmp_path):
    assert opened(make())
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(python.read_text().replace("(3, 12, 1)", "(3, 9, 18)"))
    (tmp_path / ".venv" / "chat.done").unlink()
    assert make().stderr.startswith(OLD)
