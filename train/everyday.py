"""Makes dialogues of what visitors type, answered from the persona, from templates and a seed.

Run: `python -m train.everyday --count 1500 --out everyday.json`, then `python -m train.finetune --data everyday.json ..`
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from persona_bot.errors import exit_on_error
from persona_bot.text import tidy
from train.data.dialogues import read_dialogues
from train.data.everyday import make_dialogues
from train.data.interviews import make_interviews
from train.run.command import at_least_one, check_outputs, write_dialogues


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.everyday", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--count", type=at_least_one, default=1500, help="dialogues (default: 1500)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--personas", help="dialogues whose personas speak in half of those made")
    parser.add_argument(
        "--interviews", action="store_true", help="questions of one persona instead of dialogues"
    )
    options = parser.parse_args(argv)
    with exit_on_error():
        check_outputs(options.out, read=filter(None, [options.personas]))
        read = read_dialogues(options.personas) if options.personas else []
        personas = [[tidy(line) for line in dialogue.personality] for dialogue in read]
        make = make_interviews if options.interviews else make_dialogues
        write_dialogues(options.out, make(options.count, options.seed, personas))


if __name__ == "__main__":
    main()
