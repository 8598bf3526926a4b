"""What went wrong inside a call, as one short line in the log: the kind of error and where in our code, never a visitor's words.

Gradio prints a traceback for each call that fails, whoever is to blame, so anybody could fill the log.
"""

import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio.queueing
import gradio.route_utils
import gradio.routes

ROOT = Path(__file__).parent.parent
SECONDS = 60.0  # between two lines about the same kind of fault

counts: Counter[str] = Counter()
_told: dict[str, float] = {}


def note(error: BaseException | None) -> None:
    """Counts a fault, and prints its kind and its count at most once a minute."""
    kind = f"{type(error).__name__}{_place(error)}"
    if len(counts) > 1_000:  # as many kinds are none
        kind = "others"
    counts[kind] += 1
    now = time.monotonic()
    if now - _told.get(kind, -SECONDS) >= SECONDS:
        _told[kind] = now
        print(f"A call failed: {kind}; {counts[kind]} so far.", file=sys.stderr, flush=True)


def _place(error: BaseException | None) -> str:
    """The innermost line of our own that the error came through."""
    if error is None:
        return ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT / "page") or path.is_relative_to(ROOT / "persona_bot"):
            if path.name != "middleware.py":
                return f" in {path.relative_to(ROOT)}, line {frame.lineno}"
    return ""


class _Quiet:
    """The module `traceback` for those of Gradio's modules that print one for a call that failed."""

    def print_exc(self, *_: Any, **__: Any) -> None:
        note(sys.exc_info()[1])

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)


def quieten() -> None:
    """Takes the place of `traceback` in Gradio (checked with 6.31; tests/page/test_middleware.py fails where it moves)."""
    modules: tuple[ModuleType, ...] = (gradio.queueing, gradio.route_utils, gradio.routes)
    for module in modules:
        module.traceback = _Quiet()  # type: ignore[attr-defined]  # mypy cannot know what a module holds
