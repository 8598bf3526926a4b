"""Makes a file of dialogues whose candidates a model wrote itself, ranked by rules.

Run: `python -m train.sampled --model M --data everyday.json --limit 250 --out ranked.json`
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from persona_bot import Settings
from persona_bot.errors import exit_on_error
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from train.data.dialogues import read_dialogues
from train.data.fitting import that_fit
from train.metrics.generation_eval import say, together
from train.metrics.sampled import rank_dialogue
from train.run.command import at_least_one, check_outputs, write_dialogues


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.sampled", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--model", help="Hub repository[@revision] or folder")
    parser.add_argument("--data", required=True, help="a file of train.everyday or train.questions")
    parser.add_argument("--limit", type=at_least_one, help="only the first so many dialogues")
    parser.add_argument(
        "--replies", type=at_least_one, default=3, help="drawn for each turn (default: 3)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    with exit_on_error():
        check_outputs(options.out, read=[options.data])
        dialogues = read_dialogues(options.data)[: options.limit]
        model = LocalModel.load(options.model)
        settings = Settings(temperature=0.9)
        dialogues = that_fit(
            model.layout, dialogues, model.context_length, settings.max_tokens, only_gold=True
        )

    def ranked(number: int) -> dict:
        dialogue = dialogues[number]
        persona, draw = Persona("", dialogue.personality), random.Random(options.seed + number)

        def sample(turns: Sequence[str]) -> list[str]:
            seeds = [draw.randrange(2**31) for _ in range(options.replies)]
            return [say(model, persona, turns, settings, seed) for seed in seeds]

        return rank_dialogue(dialogue, sample, draw)

    made = together(model, ranked, range(len(dialogues)), lambda items: tqdm(list(items)))
    with exit_on_error():
        write_dialogues(options.out, made)


if __name__ == "__main__":
    main()
