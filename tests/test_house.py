"""Rules of the house that a reader would overlook: how tests start and end processes, and what is written twice.

Run: `python -m pytest tests/test_house.py`
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def test_no_test_sets_the_clock_of_the_process():
    """The loop of a server in another thread that looks at it then sleeps until that time has come, perhaps for days."""
    broken = []
    for place, name, call in calls_in_tests():
        what = ".".join(ast.unparse(argument).strip("'") for argument in call.args[:-1])
        if name.endswith("setattr") and re.search(r"\btime\.(monotonic|time|sleep)$", what):
            broken.append(f"{place} {what}: set the module's `time`")
    assert broken == []


def test_the_files_that_docstrings_and_texts_say_to_run_are_there():
    files = [f for kind in ("*.py", "*.md", "*.sh") for f in ROOT.rglob(kind)]
    files = [f for f in files if not {".venv", ".git"} & set(f.relative_to(ROOT).parts)]
    named = {
        (f.relative_to(ROOT), path)
        for f in files
        for path in re.findall(r"pytest (tests/\w[\w/.]*\w)", f.read_text(encoding="utf-8"))
    }
    assert len(named) > 50
    assert [pair for pair in sorted(named) if not (ROOT / pair[1]).exists()] == []


@pytest.mark.parametrize(
    ("extra", "file"),
    [("", "requirements.txt"), ("train", "train/requirements.txt")]
    + [("convai", "train/requirements-convai.txt")]
    + [("test", "tests/requirements.txt"), ("bench", "benchmarks/requirements.txt")],
)
def test_the_project_and_its_requirements_files_agree(extra, file):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    assert wanted == [line.split("#")[0].strip() for line in lines if line and line[0] != "#"]


def test_what_a_space_installs_has_upper_bounds_and_the_tests_their_exact_versions():
    names = set()
    for file in ("requirements.txt", "train/requirements.txt", "tests/requirements.txt"):
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            if line and line[0] != "#":
                spec = line.split("#")[0].strip()
                names.add(re.split(r"[<>=]", spec)[0].lower().replace("_", "-"))
                assert file != "requirements.txt" or "<" in spec, spec
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    assert [name for name in sorted(names) if f"\n{name}==" not in pinned] == []


def test_what_is_no_code_has_a_row_among_the_licences():
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Licences")[1]
    told = re.findall(r"[`(, ]([\w.*/]+/[\w.*]*)", table)
    kinds = (
        "default_model/*.safetensors",
        "docs/*.png",
        "page/static/**/*.png",
        "page/static/faces/*",
    )
    kinds += ("train/*.json", "train/metrics/*.json", "train/data/**/*.txt", "persona_presets/*")
    for kind in kinds:
        files = [file.relative_to(ROOT) for file in ROOT.glob(kind) if file.is_file()]
        assert files, kind
        for file in files:
            assert any(file.match(row) or str(file).startswith(row) for row in told), file
