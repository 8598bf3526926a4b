"""Prints the first training example of a file, token by token, with what each position learns to predict.

Run: `python -m train.examples FILE --model M`
"""

import argparse
from collections.abc import Sequence

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import exit_on_error
from train.data.examples import IGNORED, dialogue_examples
from train.data.sources import read_source


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.examples",
        description="Print the first training example of a file, token by token.",
    )
    parser.add_argument("file", help="a file, personachat, or USER/DATASET of the Hub")
    parser.add_argument(
        "--model", help="checkpoint whose tokenizer and layout to use (default: the default model)"
    )
    options = parser.parse_args(arguments)
    with exit_on_error():
        dialogues = read_source(options.file, "train")[:1]
        checkpoint = load_checkpoint(options.model, device="cpu")
        example = dialogue_examples(checkpoint.layout, dialogues, checkpoint.max_positions)[0]
    for token, target in zip(example.ids, example.targets, strict=True):
        learns = "" if target == IGNORED else f"  -> {checkpoint.tokenizer.decode([target])!r}"
        print(f"{token:6d} {checkpoint.tokenizer.decode([token])!r}{learns}")


if __name__ == "__main__":
    main()
