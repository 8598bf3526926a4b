"""Trains a persona chatbot: dialogues -> checkpoint, loss curve, scores and model card in one folder, then the Hub if asked.

Run: `python -m train.finetune --data train/example_dialogues.json --out outputs/example` (a first try, minutes on a CPU)
     `python -m train.finetune --data personachat --out outputs/mine --publish USER/NAME` (the whole way, on a GPU)

    outputs/mine/            the checkpoint, as the page, the Hub and any chat server load it
    outputs/mine/adapter/    the LoRA adapter alone (recipe sft): a tenth of the size
    outputs/mine/            also log.jsonl, loss.png, training.json, scores.json and README.md, the model card
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

from persona_bot.errors import UserError, exit_on_error
from train.data.dialogues import Dialogue
from train.data.sources import training_data
from train.options import parse
from train.recipes.pipelines import is_main_process, train_with_convai, train_with_sft
from train.run.checkpoints import remove_checkpoints
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
from train.run.lock import only_training


def main(arguments: list[str] | None = None) -> None:
    with exit_on_error():
        try:
            run(parse(arguments))
        except KeyboardInterrupt:
            print(
                "Interrupted; the same command with --resume goes on from the last checkpoint, if there is one.",
                file=sys.stderr,
            )
            raise


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
    with only_training(options.out) if is_main_process() else contextlib.nullcontext():
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
    remove_checkpoints(options.out)
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
