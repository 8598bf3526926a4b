"""What Gradio brings and the page does not use stays away until somebody uses it."""

import importlib
import sys

import pytest

from page.blocks import demo
from page.spared import import_later


@pytest.fixture
def seldom(tmp_path, monkeypatch):
    """The file of a package that is to be imported later."""
    file = tmp_path / "seldom" / "__init__.py"
    file.parent.mkdir()
    file.write_text("ANSWER = 42\n")
    (file.parent / "inside.py").write_text("ANSWER = 43\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_later("seldom")
    yield file
    for name in ("seldom", "seldom.inside"):
        sys.modules.pop(name, None)


def test_a_module_is_run_when_it_is_used_and_not_before(seldom):
    waiting = importlib.import_module("seldom")
    assert waiting.__file__ == str(seldom)
    assert "ANSWER" not in vars(waiting) and sys.modules["seldom"] is waiting
    assert waiting.ANSWER == 42
    assert sys.modules["seldom"].ANSWER == 42 and sys.modules["seldom"] is not waiting


def test_a_part_of_it_can_be_imported_first(seldom):
    assert importlib.import_module("seldom.inside").ANSWER == 43


def test_what_is_there_already_and_what_is_not_installed_stay_as_they_are():
    import_later("sys")
    import_later("no_such_module")
    assert sys.modules["sys"] is sys and "no_such_module" not in sys.modules


def test_gradio_makes_no_table_of_all_calls_at_the_end_of_each():
    queue = demo._queue
    assert queue.ANALYTICS_MAX_EVENTS == 1
    assert queue.compute_analytics_summary([{"function": "chat"}]) == {"functions": {}}
