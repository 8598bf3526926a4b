"""The command line of `train.finetune`: flags, what each does, and a file in their place.

`--config outputs/mine/training.json` trains with the settings of that run; a file of one's own needs only

    {"recipe": "sft", "settings": {"epochs": 5, "learning_rate": 0.0003}}
"""

import argparse
import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from persona_bot.errors import UserError
from train.recipes.pipelines import is_main_process
from train.run.command import holds_files
from train.run.facts import read_facts


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Settings of recipe sft are in the result where they were given only. Raises UserError."""
    from train.recipes.sft_settings import field_types

    types = field_types()
    options = make_parser(types).parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    settings = read_config(options.config) if options.config else {}
    options.recipe = options.recipe or settings.pop("recipe", None) or "sft"
    take_settings(options, settings.get("settings", {}), types)
    check(options, [name for name in types if hasattr(options, name)])
    return options


def make_parser(types: Mapping[str, type]) -> argparse.ArgumentParser:
    """`types`: of recipe sft's settings by name."""
    usage = "python -m train.finetune --data FILE --out FOLDER [options]; --help lists them"
    parser = argparse.ArgumentParser(
        prog="python -m train.finetune",
        usage=usage,
        description="Trains a persona chatbot on dialogues, scores it, writes its card, and publishes it if asked.",
    )
    add_what(parser.add_argument_group("what"))
    add_afterwards(parser.add_argument_group("afterwards"))
    add_settings(parser.add_argument_group("recipe sft"), types)
    parser.add_argument_group("recipe convai").add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of simpletransformers' ConvAIModel",
    )
    return parser


def add_what(group: argparse._ArgumentGroup) -> None:
    """What is trained on what, and where it goes."""
    from persona_bot.checkpoints.files import BASE_MODEL
    from train.recipes.sft_settings import SftSettings

    group.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="FILE[:COUNT]",
        help="a file of dialogues, `personachat`, or USER/DATASET of the Hub; or its first COUNT; may be given again",
    )
    group.add_argument(
        "--valid",
        help="dialogues to validate on (default: the data's own `valid` part, else 5 %% of 20 or more)",
    )
    group.add_argument("--limit", type=int, help="only the first so many training dialogues")
    group.add_argument(
        "--recipe",
        choices=["sft", "convai"],
        help="sft: any causal model (the default); convai: GPT and GPT-2 as simpletransformers trains them",
    )
    group.add_argument(
        "--config",
        type=Path,
        metavar="training.json",
        help="recipe and settings of an earlier run, or of a file like its training.json; flags given here come first",
    )
    group.add_argument(
        "--model",
        help=f"base model: Hub name or folder (default: {BASE_MODEL}; gpt2 for recipe convai)",
    )
    group.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    group.add_argument(
        "--resume", action="store_true", help="go on from the last good checkpoint in --out"
    )
    group.add_argument(
        "--overwrite", action="store_true", help="train anew in an --out that holds something"
    )
    tracker = next(each for each in fields(SftSettings) if each.name == "report_to")
    group.add_argument(
        "--report-to", default=argparse.SUPPRESS, metavar="TRACKER", help=tracker.metadata["help"]
    )


def add_afterwards(group: argparse._ArgumentGroup) -> None:
    """What happens to the model that was made."""
    group.add_argument(
        "--score-dialogues",
        type=int,
        default=50,
        help="validation dialogues to score at the end; 0: none (default: 50)",
    )
    group.add_argument(
        "--publish",
        metavar="USER/NAME",
        help="upload to the Hub when done; access is checked before training",
    )
    group.add_argument("--private", action="store_true", help="for your own eyes on the Hub")
    group.add_argument(
        "--space",
        metavar="USER/NAME",
        help="also create or update a Space that runs the page on this model",
    )


def add_settings(group: argparse._ArgumentGroup, types: Mapping[str, type]) -> None:
    """Recipe sft's settings, by their names of today and, out of sight, by earlier ones."""
    from persona_bot.settings import add_flags
    from train.recipes.sft_settings import NUMBERS, RENAMED, SftSettings

    add_flags(group, SftSettings, [number.name for number in NUMBERS])
    for old, new in RENAMED.items():
        flag = f"--{old.replace('_', '-')}"
        group.add_argument(
            flag, dest=new, type=types[new], default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def check(options: argparse.Namespace, sft_settings: list[str]) -> None:
    """Raises UserError before any work when the command line cannot lead to a checkpoint."""
    only_sft = [name for name in sft_settings if name != "report_to"]
    if options.recipe == "convai" and only_sft:
        flag = only_sft[0].replace("_", "-")
        raise UserError(
            f"--{flag} belongs to recipe sft; for convai give simpletransformers' own, like --set num_train_epochs=5."
        )
    if options.recipe == "convai" and not find_spec("simpletransformers"):
        raise UserError(
            "Recipe convai needs simpletransformers; run `pip install -c constraints.txt -r train/requirements-convai.txt`."
        )
    if options.recipe == "sft" and options.set:
        raise UserError(
            f"--set {options.set[0]} belongs to recipe convai; recipe sft has flags, see --help."
        )
    if options.limit is not None and options.limit < 1:
        raise UserError(
            f"--limit must be at least 1, not {options.limit}; leave it out to train on everything."
        )
    if options.score_dialogues < 0:
        raise UserError(f"--score-dialogues must be at least 0, not {options.score_dialogues}.")
    if options.space and not options.publish:
        raise UserError("--space needs --publish USER/NAME, the model that it chats with.")
    if os.path.exists(options.out) and not os.path.isdir(options.out):
        raise UserError(f"{options.out} is a file; name a folder for --out.")
    if options.recipe == "sft" and options.model and _same_folder(options.model, options.out):
        raise UserError(
            f"{options.out} is the model that training begins with, which must stay as it is; name another folder for --out."
        )
    is_new = not holds_files(options.out) or not is_main_process()
    if not (is_new or options.resume or options.overwrite):
        raise UserError(
            f"{options.out} is not empty; --resume goes on with the training in it, --overwrite trains anew over it."
        )


def _same_folder(name: str, out: Path) -> bool:
    return os.path.exists(name) and os.path.exists(out) and os.path.samefile(name, out)


def read_config(file: Path) -> dict:
    """{"recipe": .., "settings": {..}} of a training.json, or of a file that holds settings alone. Raises UserError."""
    content = read_facts(file)
    if not content:
        raise UserError(f"{file} is not there, or empty; name the training.json of a run.")
    settings = content.get("settings", content)
    if not isinstance(settings, dict):
        raise UserError(f"{file}: 'settings' must be an object, such as {{\"epochs\": 5}}.")
    return {
        "recipe": content.get("recipe"),
        "settings": {k: v for k, v in settings.items() if k != "recipe"},
    }


def take_settings(
    options: argparse.Namespace, settings: Mapping[str, Any], types: Mapping[str, type]
) -> None:
    """Puts the settings of a file where no flag was given. Raises UserError for what the recipe does not know."""
    from train.recipes.sft_settings import RENAMED

    if options.recipe == "convai":
        options.set = [*(f"{name}={value}" for name, value in settings.items()), *options.set]
        return
    for name, value in settings.items():
        name = RENAMED.get(name, name)
        if name not in types:
            close = difflib.get_close_matches(name, types, 1)
            cure = f"did you mean {close[0]!r}?" if close else "leave it out."
            raise UserError(f"--config: recipe sft has no setting {name!r}; {cure}")
        kind = types[name]
        if value is None and name == "learning_rate":
            continue
        fits = isinstance(value, bool) == (kind is bool) and (
            isinstance(value, str) if kind is str else isinstance(value, (bool, int, float))
        )
        if not fits or (kind is int and isinstance(value, float) and not value.is_integer()):
            raise UserError(f"--config: {name!r} must be of type {kind.__name__}, not {value!r}.")
        if not hasattr(options, name):
            setattr(options, name, kind(value))
