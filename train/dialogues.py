"""Checks a file of dialogues and counts what is in it.

Run: `python -m train.dialogues FILE`
"""

import argparse
import sys

from persona_bot.errors import UserError
from train.data.dialogues import read_dialogues


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Check a file of dialogues and count what is in it."
    )
    parser.add_argument("file")
    parser.add_argument(
        "--split", default="train", help="which part of a file that has parts (default: train)"
    )
    args = parser.parse_args()
    try:
        dialogues = read_dialogues(args.file, args.split)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    replies = sum(len(dialogue.utterances) for dialogue in dialogues)
    print(f"{args.file}: {len(dialogues):,} dialogues, {replies:,} replies, no problems.")


if __name__ == "__main__":
    main()
