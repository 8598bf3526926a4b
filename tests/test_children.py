"""What tests start ends with them. Run: `python -m pytest tests/test_children.py`"""

import subprocess
import sys
from pathlib import Path

from tests.children import program

ROOT = Path(__file__).parent.parent
PARENT = """
import sys
from tests.children import program
grandchild = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'], timeout=900)"
with program([sys.executable, "-c", grandchild]):
    print("started", flush=True)
    sys.stdin.read()
"""


def test_a_child_and_its_own_children_are_gone_when_the_test_process_is_killed():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with program([sys.executable, "-c", PARENT], cwd=ROOT, **pipes) as parent:
        assert parent.stdout.readline() == "started\n"
        parent.kill()
        # all of them hold this pipe, so that it ends with the last
        assert parent.communicate(timeout=60) == ("", None)
