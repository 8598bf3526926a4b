"""Writes a trained folder's README.md, the model card, anew from its training.json and scores.json.

Run: `python -m train.model_card FOLDER [--name USER/NAME]`
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError, exit_on_error
from train.hub.model_card import model_card
from train.run.command import write
from train.run.facts import read_facts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.model_card", description="Write a checkpoint folder's README.md anew."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", help="USER/NAME on the Hub, where it has one")
    options = parser.parse_args(arguments)
    with exit_on_error():
        facts, report = (
            read_facts(options.folder / "training.json"),
            read_facts(options.folder / "scores.json"),
        )
        if not facts:
            raise UserError(
                f"{options.folder} holds no training.json; name a folder that train.finetune wrote."
            )
        facts["adapter_only"] = (options.folder / "adapter_config.json").exists()
        card = model_card(
            load_checkpoint(str(options.folder), double_heads=True), facts, report, options.name
        )
        write(options.folder / "README.md", card)


if __name__ == "__main__":
    main()
