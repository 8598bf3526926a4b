"""Rules of the house that a reader would overlook: how tests start and end processes, and what is written twice.

Run: `python -m pytest tests/test_house.py`
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
WAITS = ("wait", "join", "communicate")  # without an argument they may wait for ever


def calls_in_tests() -> Iterator[tuple[str, str, ast.Call]]:
    """(file and line, the call's name as written, the call) of every call in the tests."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node


def test_no_test_forks_the_test_process_or_waits_without_a_limit():
    broken = []
    for place, name, call in calls_in_tests():
        options = {keyword.arg for keyword in call.keywords}
        if name in ("os.fork", "os.forkpty", "pty.fork", "pty.spawn", "os.system"):
            broken.append(f"{place} {name}")
        if name == "subprocess.Popen" and not place.startswith("tests/children.py"):
            broken.append(f"{place} {name}: use tests.children.program")
        if name in ("subprocess.run", "subprocess.check_output") and "timeout" not in options:
            broken.append(f"{place} {name} without timeout")
        if name.rpartition(".")[2] in WAITS and not call.args and not call.keywords:
            broken.append(f"{place} {name}() without a limit")
        if name.endswith("get_context") and [a.value for a in call.args] != ["forkserver"]:
            broken.append(f"{place} {name}: only the server of tests/children.py forks")
    assert broken == []
