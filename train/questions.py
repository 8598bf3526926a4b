"""Makes dialogues in which the persona is asked about itself, from templates and a seed.

Run: `python -m train.questions --count 800 --out questions.json`, then `python -m train.finetune --data questions.json ..`
"""

import argparse
import json
from pathlib import Path

from train.data.questions import make_dialogues


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.questions", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--count", type=int, default=800, help="dialogues (default: 800)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    dialogues = make_dialogues(options.count, options.seed)
    options.out.write_text(json.dumps(dialogues, indent=1) + "\n", encoding="utf-8")
    print(
        f"{len(dialogues)} dialogues, {sum(len(d['utterances']) for d in dialogues)} replies: {options.out}"
    )


if __name__ == "__main__":
    main()
