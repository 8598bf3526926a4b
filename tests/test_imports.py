"""Who may import whom: read from the source of every module, and checked once more in a fresh interpreter.

Run: `python -m pytest tests/test_imports.py`

    persona, settings <- layouts <- prompt <- engine <- checkpoints <- replies <- page <- app
    persona_bot <- train.data, run <- metrics <- recipes <- hub <- the commands
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# package: what nothing in it may import, at the top of a module or anywhere else in it
FORBIDDEN = {
    "persona_bot": {"gradio", "train", "page", "app", "simpletransformers", "wandb"},
    "page": {"train", "app", "simpletransformers", "wandb"},
    "app": {"train", "simpletransformers", "wandb"},
    "train": {"gradio", "page", "app", "wandb"},
}
ORDERS = [  # none of these reaches one that stands to its right, not even through others
    [
        "persona_bot.errors",
        "persona_bot.persona",
        "persona_bot.layouts",
        "persona_bot.prompt",
        "persona_bot.checkpoints.load",
        "persona_bot.replies.local",
    ],
    ["persona_bot.errors", "persona_bot.checkpoints.hub", "persona_bot.checkpoints.load"],
    [
        "persona_bot.engine.sampler",
        "persona_bot.engine.likelihood",
        "persona_bot.engine.backend",
        "persona_bot.replies.local",
    ],
    ["persona_bot.replies.reply", "persona_bot.replies.best_of", "persona_bot.replies.local"],
    [
        "persona_bot.engine.likelihood",
        "train.metrics.likelihood",
        "train.metrics.ranking_eval",
        "train.evaluate",
    ],
    [
        "persona_bot.replies.reply",
        "persona_bot.replies.openai_protocol",
        "persona_bot.replies.remote",
        "persona_bot",
        "persona_bot.__main__",
    ],
    [
        "persona_bot.persona",
        "persona_bot.layouts",
        "persona_bot.prompt",
        "train.data.dialogues",
        "train.data.examples",
        "train.recipes.sft",
        "train.finetune",
    ],
    ["train.data.dialogues", "train.data.examples", "train.recipes.convai", "train.finetune"],
]
CHAT = ["persona_bot.engine", "persona_bot.checkpoints", "persona_bot.replies", "persona_bot"]
TRAINING = ["train.data", "train.run", "train.metrics", "train.recipes", "train.hub", "train"]
ROOMS = [[*CHAT, "page", "app"], [*CHAT, *TRAINING]]  # each may import those to its left
FIRST = {"train.convai"}  # the class under the name that notebooks import
SIBLINGS = [("train.recipes.convai", "train.recipes.sft")]  # neither reaches the other
# besides each other
ONLY_STDLIB = [
    "persona_bot.errors",
    "persona_bot.persona",
    "persona_bot.layouts",
    "persona_bot.prompt",
    "persona_bot.settings",
    "persona_bot.replies.reply",
]
TRAINING_STACK = [
    "simpletransformers",
    "wandb",
    "tensorboard",
    "sklearn",
    "streamlit",
    "datasets",
    "train",
]
# what no recipe but convai needs; where it is missing, these are None
CONVAI_STACK = [
    "simpletransformers",
    "datasets",
    "wandb",
    "tensorboard",
    "tensorboardX",
    "streamlit",
]


def find_modules() -> dict[str, Path]:
    files = [
        ROOT / "app.py",
        *(
            file
            for package in ("persona_bot", "page", "train")
            for file in (ROOT / package).rglob("*.py")
        ),
    ]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


def imports_of(source: str, module: str, with_types: bool = True) -> set[str]:
    """Dotted names of everything that the source imports anywhere in it: `from a import b` gives a and a.b.

    `with_types`: also what stands under `if TYPE_CHECKING`, which mypy reads and no program loads.
    """
    names, tree = set(), ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = node.body if with_types else [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(module.split(".")[: -node.level]) if node.level else ""
            base = ".".join(part for part in (package, node.module) if part)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


MODULES = find_modules()
IMPORTS = {
    module: imports_of(file.read_text(encoding="utf-8"), module) for module, file in MODULES.items()
}

LOADS = {
    module: imports_of(file.read_text(encoding="utf-8"), module, with_types=False)
    for module, file in MODULES.items()
}


def reached_from(module: str) -> set[str]:
    """Our modules that importing this one can load, in any number of steps."""
    reached, waiting = set(), [module]
    while waiting:
        new = (LOADS.get(waiting.pop(), set()) & MODULES.keys()) - reached
        reached |= new
        waiting += new
    return reached


def test_imports_are_read_wherever_they_stand():
    source = "import a.b as c\ndef f():\n    from d import e\n    from . import g\n    from .h import i\nif 0:\n    import j, k"
    assert imports_of(source, "train.sft") == {
        "a.b",
        "d",
        "d.e",
        "train",
        "train.g",
        "train.h",
        "train.h.i",
        "j",
        "k",
    }


def test_imports_for_types_load_nothing():
    source = "import a\nif TYPE_CHECKING:\n    from b import c\nelse:\n    import d"
    assert imports_of(source, "page", with_types=False) == {"a", "d"}
    assert imports_of(source, "page") == {"a", "b", "b.c", "d"}


def test_the_modules_that_the_rules_name_exist():
    named = {name for order in ORDERS for name in order} | set(ONLY_STDLIB) | {"app", "page"}
    assert named <= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_what_its_package_must_not(module):
    forbidden = FORBIDDEN[module.split(".")[0]]
    assert not {name for name in IMPORTS[module] if name.split(".")[0] in forbidden}


@pytest.mark.parametrize("order", ORDERS, ids=" <- ".join)
def test_imports_go_one_way(order):
    for place, module in enumerate(order):
        assert not reached_from(module) & set(order[place + 1 :]), module


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_itself_and_those_to_its_left(module):
    """The rooms of both programs, each a folder; a module that stands outside of them is its folder's front."""
    for rooms in ROOMS:
        if room_of(module, rooms) is None:
            continue
        place = rooms.index(room_of(module, rooms))
        for name in IMPORTS[module] & MODULES.keys():
            other = room_of(name, rooms)
            assert other is None or rooms.index(other) <= place, f"{module} imports {name}"


def room_of(module: str, rooms: list[str]) -> str | None:
    """The longest of the rooms that a module is in; what is used before any room opens is in none."""
    if module in FIRST or (module.startswith("persona_bot.") and module.count(".") == 1):
        return None if module != "persona_bot.__main__" else "persona_bot"
    fitting = [room for room in rooms if module == room or module.startswith(room + ".")]
    return max(fitting, key=len, default=None)


@pytest.mark.parametrize("one, other", SIBLINGS)
def test_the_recipes_do_not_know_each_other(one, other):
    assert other not in reached_from(one) and one not in reached_from(other)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reaches_itself(module):
    assert module not in reached_from(module)


@pytest.mark.parametrize("module", ONLY_STDLIB)
def test_the_foundation_needs_the_standard_library_only(module):
    roots = {name.split(".")[0] for name in LOADS[module]}
    assert roots <= sys.stdlib_module_names | {"persona_bot"}


def test_what_is_loaded_at_run_time():
    """The parts one after the other, each with what must not be there afterwards; training without what only convai needs."""
    training = "train.average, train.convert, train.dialogues, train.evaluate, train.examples, train.export"
    training += (
        ", train.finetune, train.publish, train.recipes.packed_trainer, train.data.readers.hub"
    )
    parts = [
        ("persona_bot, persona_bot.__main__", ["torch", "transformers", "httpx"]),
        ("persona_bot.replies.local, persona_bot.replies.remote", ["gradio", "page"]),
        ("app, page", TRAINING_STACK),
    ]
    script = "import sys\n"
    for modules, absent in parts:
        script += f"import {modules}\nprint('LOADED', sorted(sys.modules.keys() & set({absent})))\n"
    script += f"sys.modules.update(dict.fromkeys({CONVAI_STACK}))\nimport {training}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert (done.returncode, told) == (0, ["LOADED []"] * 3), done.stderr[-2_000:]
