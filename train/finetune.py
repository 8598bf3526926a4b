"""Trains a persona chatbot: dialogues -> checkpoint, loss curve, scores and model card in one folder, then the Hub if asked.

Run: `python -m train.finetune --data train/example_dialogues.json --out outputs/example` (a first try, minutes on a CPU)
     `python -m train.finetune --data personachat --out outputs/mine --publish USER/NAME` (the whole way, on a GPU)

    outputs/mine/            the checkpoint, as the page, the Hub and any chat server load it
    outputs/mine/adapter/    the LoRA adapter alone (recipe sft): a tenth of the size
    outputs/mine/            also log.jsonl, loss.png, training.json, scores.json and README.md, the model card
"""

import argparse
import sys
import time
from pathlib import Path

from persona_bot.errors import UserError
from train.data.dialogues import Dialogue
from train.data.sources import training_data
from train.recipes.pipelines import is_main_process, train_with_convai, train_with_sft
from train.run.facts import (
    base_facts,
    earlier_facts,
    machine,
    minutes,
    public_command,
    public_facts,
    source_name,
    write_json,
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Settings of recipe sft are in the result where they were given only. Raises UserError."""
    from persona_bot.checkpoints.files import BASE_MODEL
    from train.recipes.sft import SftSettings, field_types

    usage = "python -m train.finetune --data FILE --out FOLDER [options]; --help lists them"
    parser = argparse.ArgumentParser(
        prog="python -m train.finetune", usage=usage, description=__doc__.split("\n\n")[0]
    )
    group = parser.add_argument_group("what")
    group.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="FILE[:COUNT]",
        help="JSON file of dialogues, or `personachat`, or its first COUNT dialogues; may be given again",
    )
    group.add_argument(
        "--valid",
        help="file to validate on (default: the data's own `valid` part, else 5 %% of the dialogues)",
    )
    group.add_argument("--limit", type=int, help="only the first so many training dialogues")
    group.add_argument("--recipe", choices=["sft", "convai"], default="sft")
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
    group = parser.add_argument_group("afterwards")
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
    group.add_argument("--private", action="store_true")
    group.add_argument(
        "--space",
        metavar="USER/NAME",
        help="also create or update a Space that runs the page on this model",
    )
    group = parser.add_argument_group(
        "recipe sft", "learning rate: 4e-4 for LoRA, 5e-5 with --lora-rank 0"
    )
    for name, kind in field_types().items():
        how = (
            {"action": argparse.BooleanOptionalAction}
            if kind is bool
            else {"type": kind, "metavar": kind.__name__.upper()}
        )
        group.add_argument(
            "--" + name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=f"(default: {getattr(SftSettings, name)})",
            **how,
        )
    group = parser.add_argument_group("recipe convai")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of simpletransformers' ConvAIModel",
    )
    options = parser.parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    check(options, [name for name in field_types() if hasattr(options, name)])
    return options


def check(options: argparse.Namespace, sft_settings: list[str]) -> None:
    """Raises UserError before any work when the command line cannot lead to a checkpoint."""
    if options.recipe == "convai" and sft_settings:
        flag = sft_settings[0].replace("_", "-")
        raise UserError(
            f"--{flag} belongs to recipe sft; for convai give simpletransformers' own, like --set num_train_epochs=5."
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
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file; name a folder for --out.")
    is_new = not options.out.exists() or not any(options.out.iterdir()) or not is_main_process()
    if not (is_new or options.resume or options.overwrite):
        raise UserError(
            f"{options.out} is not empty; --resume goes on with the training in it, --overwrite trains anew over it."
        )


def main(arguments: list[str] | None = None) -> None:
    try:
        run(parse(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "Interrupted; the same command with --resume goes on from the last checkpoint, if there is one.",
            file=sys.stderr,
        )
        sys.exit(130)


def run(options: argparse.Namespace) -> None:
    """Checks access, reads, trains, scores, writes the card, publishes: in this order, each step's failure said at once."""
    if options.publish:
        from train.hub.access import check_access

        check_access(options.publish)
        if options.space:
            check_access(options.space, "space")
    train, valid = read_data(options)
    make_folder(options.out)
    started = time.monotonic()
    facts = (
        train_with_sft(options, train, valid)
        if options.recipe == "sft"
        else train_with_convai(options, train, valid)
    )
    if not is_main_process():
        return
    facts = public_facts(facts) | base_facts(facts["base_model"])
    facts |= {"recipe": options.recipe, "data": [source_name(name) for name in options.data]}
    facts |= {"train_dialogues": len(train), "valid_dialogues": len(valid)}
    facts |= {"minutes": minutes(options.out, started), "machine": machine()}
    facts |= {"command": public_command("python -m train.finetune", options.given)}
    facts |= earlier_facts(options.model)
    score_and_describe(options, valid, facts)
    if options.publish:
        from train.publish import publish

        print(publish(options.out, options.publish, options.private, options.space))
    print(f"done: python app.py --model {options.out}")


def read_data(options: argparse.Namespace) -> tuple[list[Dialogue], list[Dialogue]]:
    """Training and validation dialogues that the command line names."""
    return training_data(options.data, options.valid, options.limit)


def score_and_describe(options: argparse.Namespace, valid: list[Dialogue], facts: dict) -> None:
    """Scores what was made as the chat would load it, and writes training.json, loss.png, scores.json and the model card."""
    from persona_bot.checkpoints.load import load_checkpoint
    from train.evaluate import evaluate_folder
    from train.hub.model_card import model_card
    from train.run.log import draw_curve

    try:
        write_json(options.out / "training.json", facts)
        draw_curve(options.out)
        scores = {}
        if options.score_dialogues and valid:
            scores = evaluate_folder(options.out, valid[: options.score_dialogues])
            write_json(options.out / "scores.json", scores)
        checkpoint = load_checkpoint(str(options.out), double_heads=True)
        (options.out / "README.md").write_text(
            model_card(checkpoint, facts, scores, options.publish), encoding="utf-8"
        )
    except OSError as error:
        raise UserError(
            f"{options.out} cannot be written ({error.strerror or error}); free space, then --resume."
        ) from error


def make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{out} cannot be made ({error.strerror}); name another folder for --out."
        ) from error


if __name__ == "__main__":
    main()
