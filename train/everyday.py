"""Makes dialogues of what visitors type, answered from the persona, from templates and a seed.

Run: `python -m train.everyday --count 1500 --out everyday.json`, then `python -m train.finetune --data everyday.json ..`
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from persona_bot.text import tidy
from train.data.dialogues import read_dialogues
from train.data.everyday import make_dialogues
from train.data.interviews import make_interviews


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.everyday", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--count", type=int, default=1500, help="dialogues (default: 1500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--personas", help="dialogues whose personas speak in half of those made")
    parser.add_argument(
        "--interviews", action="store_true", help="questions of one persona instead of dialogues"
    )
    options = parser.parse_args(argv)
    read = read_dialogues(options.personas) if options.personas else []
    personas = [[tidy(line) for line in dialogue.personality] for dialogue in read]
    make = make_interviews if options.interviews else make_dialogues
    dialogues = make(options.count, options.seed, personas)
    options.out.write_text(json.dumps(dialogues, indent=1) + "\n", encoding="utf-8")
    print(
        f"{len(dialogues)} dialogues, {sum(len(d['utterances']) for d in dialogues)} replies: {options.out}"
    )


if __name__ == "__main__":
    main()
