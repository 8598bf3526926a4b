"""Checks dialogues, counts what is in them, shows the first as it was understood, and converts them if asked.

Run: `python -m train.dialogues FILE [--to OUT.json]`

FILE is what `train.finetune --data` takes too: Persona-Chat JSON, JSON lines, ParlAI text, CSV or Parquet with
conversations in one of the usual ways, `personachat`, or USER/DATASET of the Hub.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from persona_bot.errors import exit_on_error
from train.data.dialogues import as_entries, as_text
from train.data.sources import plural, read_source, split_count
from train.run.command import check_outputs, write_dialogues


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.dialogues", description=__doc__.splitlines()[0]
    )
    parser.add_argument("file", help="a file, personachat, or USER/DATASET of the Hub")
    parser.add_argument(
        "--split", default="train", help="which part of a file that has parts (default: train)"
    )
    parser.add_argument(
        "--to", type=Path, metavar="OUT.json", help="write them as Persona-Chat JSON"
    )
    options = parser.parse_args(arguments)
    with exit_on_error():
        check_outputs(options.to, read=[split_count(options.file)[0]])
        dialogues = read_source(options.file, options.split)
        if options.to:
            write_dialogues(options.to, as_entries(dialogues))
    replies = sum(len(dialogue.utterances) for dialogue in dialogues)
    counts = f"{plural(len(dialogues), 'dialogue')}, {plural(replies, 'reply')}, no problems."
    print(f"{options.file}: {counts}\nThe first as it was read:\n{as_text(dialogues[0])}")


if __name__ == "__main__":
    main()
