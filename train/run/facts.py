"""What training.json says about a run: command, data, base, time, machine. No path of this machine is ever in it."""

import json
import os
import platform
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persona_bot.errors import UserError

# where a path of somebody's machine begins: POSIX, home, file:, drive, UNC, a way out of this folder
_PRIVATE = re.compile(r"/|~|file:|[A-Za-z]:[\\/]|\\\\|\.\.(?:[\\/]|$)|\$\w+[\\/]|%\w+%[\\/]")
# the same inside of a longer text, such as a list; an address like http://host/name is none
_INSIDE = re.compile(
    r"(?<![\w/:.~\\])(?:file:/*|~[\w-]*[\\/]|[A-Za-z]:[\\/]|\\\\|\.\.[\\/]|/)[^'\",\])]*?([^'\",\])\\/]+)[\\/]*(?=$|['\",\])])"
)


def is_private_path(text: str) -> bool:
    """Whether a text is a path that says something about the machine, and not a name within the working folder."""
    return bool(_PRIVATE.match(text)) or ".." in re.split(r"[\\/]", text)


def public_name(text: str) -> str:
    """The text with each private path in it cut to its last name: `--data=/home/me/a.json:9` -> `--data=a.json:9`."""
    if setting := re.fullmatch(r"([-\w.]+)=(.*)", text, re.DOTALL):
        return f"{setting[1]}={public_name(setting[2])}"
    if is_private_path(text):
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1].removeprefix("file:") or "FOLDER"
    return _INSIDE.sub(r"\1", text)


def public_command(program: str, arguments: Sequence[str]) -> str:
    """The command line as it may be published."""
    return " ".join([program, *map(public_name, arguments)])


def source_name(name: str) -> str:
    """What training.json calls a `--data` value: a file without its folders, anything else as it is."""
    is_file = os.path.isfile(re.sub(r":\d+$", "", name))
    return Path(name).name if is_file else public_name(name)


def public_facts(facts: Any) -> Any:
    """Any JSON value with the private paths in its strings cut; commands word by word."""
    if isinstance(facts, str):
        return public_name(facts) if is_private_path(facts) else _words(facts)
    if isinstance(facts, dict):
        return {key: public_facts(value) for key, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [public_facts(value) for value in facts]
    return facts


def _words(text: str) -> str:
    return "".join(public_name(part) if part.strip() else part for part in re.split(r"(\s+)", text))


def base_facts(base: str) -> dict:
    """The base model's name; of a folder only the last part, and that it is no name on the Hub."""
    if os.path.exists(base) or is_private_path(base):
        name = re.split(r"[\\/]", str(Path(base).absolute()).rstrip("\\/"))[-1]
        return {"base_model": name, "base_is_folder": True}
    return {"base_model": base}


def earlier_facts(model: str | None) -> dict:
    """{"goes_on_from": training.json} of the folder whose training goes on: an adapter's, or one that was trained whole."""
    folder = Path(model or "")
    if not model or not os.path.isdir(folder):
        return {}
    places = [folder / "training.json"]
    if os.path.isfile(folder / "adapter_config.json"):
        places.append(folder.absolute().parent / "training.json")
    file = next((place for place in places if os.path.isfile(place)), None)
    return {"goes_on_from": public_facts(read_facts(file))} if file else {}


def read_facts(file: Path) -> dict:
    """A training.json or scores.json as an object, {} where there is no such file. Raises UserError."""
    if not os.path.isfile(file):
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{file} is not valid JSON; make it again with train.finetune or train.evaluate."
        ) from error


def minutes(out: Path, started: float) -> float:
    """How long training took, the parts before a --resume included."""
    from train.run.log import read_log

    logged = max((line["seconds"] for line in read_log(out)), default=0.0)
    return round(max(logged, time.monotonic() - started) / 60, 1)


def machine() -> str:
    """`1 x NVIDIA H100`, or `x86_64 CPU, 2 threads`."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
