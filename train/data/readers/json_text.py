"""JSON and JSON lines -> (place, object) pairs, each as soon as it is whole; and where in the text a place is.

200 MB of JSON are read in 100 MB of memory.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

import ijson

from train.data.readers.rows import TURNS

MAX_DEPTH = 8  # of nested brackets; the layouts need 6
PARTS = {"valid": ("valid", "validation", "validate", "dev")}  # what files call a part
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODE = json.JSONDecoder().raw_decode


class BadJson(ValueError):
    """(place, reason): text that is not JSON."""


def read_json(file: IO[bytes], part: str) -> Iterator[tuple[str, object]]:
    """(`entry 17`, its value) of a list, or of the part of an object with parts. Raises BadJson."""
    number = 0
    try:
        for number, entry in enumerate(entries(file, part), 1):
            yield f"entry {number}", entry
    except UnicodeError:
        raise BadJson(_after(number), "bytes that are no UTF-8 text") from None
    # the last two: numbers and bytes that Python refuses
    except (ijson.JSONError, ValueError, ArithmeticError) as error:
        raise BadJson(_after(number), _reason(error)) from error


def read_json_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, object]]:
    """(`line 17`, its value). Raises BadJson."""
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"line {number}", json.loads(line.decode(), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise BadJson(f"line {number}", f"{error.msg}, column {error.colno}") from error
    except UnicodeError:
        raise BadJson(f"line {number}", "bytes that are no UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise BadJson(f"line {number}", _reason(error)) from error


def entries(file: IO[bytes], part: str) -> Iterator[Any]:
    """The entries of an open file as Python objects; equal strings are one object.

    Built on the parser's plain events: its ready-made `items` needs memory quadratic in the depth of brackets.
    """
    parts = (None, *PARTS.get(part, (part,)))
    open_: list[Any] = []
    keys: list[str | None] = []
    shared: dict[str, str] = {}
    for event, value in ijson.basic_parse(file, use_float=True):
        if event == "map_key":
            keys[-1] = value
            continue
        if event.startswith("start_"):
            if len(open_) == MAX_DEPTH:
                raise ValueError(f"brackets nested deeper than {MAX_DEPTH}")
            open_.append({} if event == "start_map" else [])
            keys.append(None)
            continue
        if event.startswith("end_"):
            value = open_.pop()
            keys.pop()
        elif event == "string":
            value = shared.setdefault(value, value)
        # how many brackets stand around an entry
        level = 1 if open_ and isinstance(open_[0], list) else 2
        if len(open_) > level and isinstance(open_[-1], dict):
            if keys[-1] in open_[-1]:
                raise ValueError(f"the key {keys[-1]!r} twice in one object")
            open_[-1][keys[-1]] = value
        elif len(open_) > level:
            open_[-1].append(value)
        elif len(open_) == level and keys[0] in parts:
            yield value


def position(text: str, part: str, where: str) -> str:
    """` (line 12, column 7)` of a place like `entry 17, utterance 3` in a JSON text; "" where it cannot be found."""
    numbers = {word: int(number) for word, number in re.findall(r"(\w+) (\d+)", where)}
    try:
        at = _skip(text, 0)
        if text[at] == "{":
            at = _value_of(text, at, PARTS.get(part, (part,)))
        at = _item(text, at, numbers.pop("entry"))
        for word, number in numbers.items():
            plural = TURNS if word == "message" else (f"{word}s",)
            at = _item(text, _value_of(text, at, plural), number)
    except (ValueError, KeyError, IndexError, RecursionError):
        return ""
    return f" (line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)})"


def error_position(text: str) -> str:
    """` (line 12, column 7)` of the first thing in a text that is not JSON; "" where the reason is of another kind."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f" (line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError):
        pass
    return ""


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _item(text: str, at: int, number: int) -> int:
    """Where item `number`, counted from 1, of the list at `at` begins."""
    at = _skip(text, at + 1)
    for _ in range(number - 1):
        at = _skip(text, _skip(text, _DECODE(text, at)[1]) + 1)  # behind the comma
    return at


def _value_of(text: str, at: int, names: Iterable[str]) -> int:
    """Where the value of one of these keys of the object at `at` begins."""
    while True:
        key, at = _DECODE(text, _skip(text, at + 1))
        at = _skip(text, _skip(text, at) + 1)  # behind the colon
        if key in names:
            return at
        at = _skip(text, _DECODE(text, at)[1])


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} twice in one object")
        found[key] = value
    return found


def _after(number: int) -> str:
    return f"after entry {number}" if number else "entry 1"


def _reason(error: Exception) -> str:
    """The parser's reason in a few words, without the drawing of the place under it."""
    text = str(error.args[0] if error.args else error).replace("\\n", "\n")
    return text.splitlines()[0].removeprefix("b'").strip(" .")[:80] if text else "unknown"
