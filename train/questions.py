"""Makes dialogues in which the persona is asked about itself, from templates and a seed.

Run: `python -m train.questions --count 800 --out questions.json`, then `python -m train.finetune --data questions.json ..`
"""

import argparse
from pathlib import Path

from persona_bot.errors import exit_on_error
from train.data.questions import make_dialogues
from train.run.command import at_least_one, check_outputs, write_dialogues


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.questions", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--count", type=at_least_one, default=800, help="dialogues (default: 800)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    with exit_on_error():
        check_outputs(options.out)
        write_dialogues(options.out, make_dialogues(options.count, options.seed))


if __name__ == "__main__":
    main()
