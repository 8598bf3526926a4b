"""Trains a persona chatbot: dialogues -> checkpoint, loss curve, scores and model card in one folder, then the Hub if asked.

Run: `python -m train.finetune --data train/example_dialogues.json --out outputs/example` (a first try, minutes on a CPU)
     `python -m train.finetune --data personachat --out outputs/mine --publish USER/NAME` (the whole way, on a GPU)

    outputs/mine/            the checkpoint, as the page, the Hub and any chat server load it
    outputs/mine/adapter/    the LoRA adapter alone (recipe sft): a tenth of the size
    outputs/mine/            also log.jsonl, loss.png, training.json, scores.json and README.md, the model card
"""

import argparse
import json
import platform
import random
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path

from persona_bot.errors import UserError
from train.dialogues import Dialogue, read_dialogues


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    from persona_bot.checkpoint import BASE_MODEL
    from train.sft import SftSettings

    parser = argparse.ArgumentParser(prog="python -m train.finetune", description=__doc__.split("\n\n")[0])
    group = parser.add_argument_group("what")
    group.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="FILE[:COUNT]",
        help="JSON file of dialogues, or `personachat`, or its first COUNT dialogues; may be given again",
    )
    group.add_argument("--valid", help="file to validate on (default: the data's own `valid` part, else 5 %% of the dialogues)")
    group.add_argument("--limit", type=int, help="only the first so many training dialogues")
    group.add_argument("--recipe", choices=["sft", "convai"], default="sft")
    group.add_argument("--model", help=f"base model: Hub name or folder (default: {BASE_MODEL}; gpt2 for recipe convai)")
    group.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    group.add_argument("--resume", action="store_true", help="go on from the last good checkpoint in --out")
    group = parser.add_argument_group("afterwards")
    group.add_argument("--score-dialogues", type=int, default=50, help="validation dialogues to score at the end; 0: none (default: 50)")
    group.add_argument("--publish", metavar="USER/NAME", help="upload to the Hub when done; access is checked before training")
    group.add_argument("--private", action="store_true")
    group.add_argument("--space", metavar="USER/NAME", help="also create or update a Space that runs the page on this model")
    group = parser.add_argument_group("recipe sft")
    for field in fields(SftSettings):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            group.add_argument(flag, type=type(field.default), default=field.default)
    group = parser.add_argument_group("recipe convai")
    group.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of simpletransformers' ConvAIModel")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    try:
        run(parse(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def run(options: argparse.Namespace) -> None:
    """Checks access, reads, trains, scores, writes the card, publishes: in this order, each step's failure said at once."""
    if options.publish:
        from train.publish import check_access

        check_access(options.publish)
        if options.space:
            check_access(options.space, "space")
    train, valid = read_data(options)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    facts = train_with_sft(options, train, valid) if options.recipe == "sft" else train_with_convai(options, train, valid)
    facts |= {"recipe": options.recipe, "data": [Path(d).name for d in options.data], "train_dialogues": len(train)}
    facts |= {"valid_dialogues": len(valid), "minutes": round((time.monotonic() - started) / 60, 1), "machine": machine()}
    facts |= {"command": "python -m train.finetune " + " ".join(public_arguments(sys.argv[1:]))}
    write_json(options.out / "training.json", facts)
    from train.progress import draw_curve

    draw_curve(options.out)
    score_and_describe(options, valid, facts)
    if options.publish:
        from train.publish import publish

        print(publish(options.out, options.publish, options.private, options.space))
    print(f"done: python app.py --model {options.out}")


def read_data(options: argparse.Namespace) -> tuple[list[Dialogue], list[Dialogue]]:
    """Training and validation dialogues; without a validation part, 5 % of the dialogues (at least one) are held out."""
    names, counts = zip(*(split_count(name) for name in options.data), strict=True)
    files = [fetch(name) for name in names]
    train = [d for file, count in zip(files, counts, strict=True) for d in read_dialogues(file, "train", **tolerance(options))[:count]]
    if options.valid:
        valid = read_dialogues(fetch(options.valid), "valid")
    else:
        valid = [d for file in files if has_part(file, "valid") for d in read_dialogues(file, "valid", **tolerance(options))]
    random.Random(0).shuffle(train)
    if not valid:
        count = max(1, len(train) // 20)
        train, valid = train[count:], train[:count]
    train = train[: options.limit]
    if not train:
        raise UserError("Nothing is left to train on; name a file with at least two dialogues, or a larger --limit.")
    return train, valid


def train_with_sft(options: argparse.Namespace, train: list[Dialogue], valid: list[Dialogue]) -> dict:
    """Recipe sft from base to saved checkpoint; returns the facts for training.json."""
    from persona_bot.checkpoint import BASE_MODEL
    from train import sft
    from train.examples import dialogue_examples, pack
    from train.saved_model import load_base, save_trained

    settings = sft.SftSettings(**{field.name: getattr(options, field.name) for field in fields(sft.SftSettings)})
    base = options.model or BASE_MODEL
    model, tokenizer, layout, settings = load_base(base, settings)
    shuffle = random.Random(settings.seed)
    examples = dialogue_examples(layout, train, settings.row_length, settings.both_sides, shuffle)
    checks = dialogue_examples(layout, valid[:200], settings.row_length)
    rows = pack(examples, settings.row_length)
    print_plan(settings, base, examples, rows, sft.estimate(model, rows, settings))
    trainer, settings = sft.train_sft(model, examples, checks, options.out, settings, options.resume)
    if trainer.stopped_by_signal:
        raise UserError(f"Training was interrupted and its state saved in {options.out}; the same command with --resume goes on.")
    save_trained(model, tokenizer, layout, base, options.out)
    tokens = sum(len(e.ids) for e in examples)
    return {"base_model": base, "layout": layout.name, "settings": asdict(settings), "steps": trainer.state.global_step, "tokens": tokens}


def train_with_convai(options: argparse.Namespace, train: list[Dialogue], valid: list[Dialogue]) -> dict:
    """Recipe convai; its settings are simpletransformers' own names."""
    from train.convai import read_settings, train_convai

    base = options.model or "gpt2"
    args = read_settings(options.set)
    progress = train_convai(base, train, valid, options.out, args, options.resume)
    return {"base_model": base, "layout": "convai", "settings": args, "steps": progress.step}


def print_plan(settings, base: str, examples, rows, estimate: tuple[float, float]) -> None:
    """The settings in force, and what they will cost."""
    seconds, memory = estimate
    print(f"base {base}: " + ", ".join(f"{k} {v}" for k, v in asdict(settings).items()))
    print(
        f"{len(examples):,} conversations, {sum(e.supervised for e in examples):,} supervised of {sum(len(e.ids) for e in examples):,} "
        f"tokens in {len(rows):,} rows; about {seconds / 60:.0f} minutes and {memory:.1f} GB"
    )


def score_and_describe(options: argparse.Namespace, valid: list[Dialogue], facts: dict) -> None:
    """Scores what was made as the chat would load it, and writes scores.json and the model card."""
    from persona_bot.checkpoint import load_checkpoint
    from train.evaluate import evaluate_folder
    from train.model_card import model_card

    scores = {}
    if options.score_dialogues and valid:
        scores = evaluate_folder(options.out, valid[: options.score_dialogues])
        write_json(options.out / "scores.json", scores)
    checkpoint = load_checkpoint(str(options.out), double_heads=True)
    (options.out / "README.md").write_text(model_card(checkpoint, facts, scores, options.publish), encoding="utf-8")


def fetch(name: str) -> Path:
    """A file's path; `personachat` is the public data set, downloaded once."""
    if name != "personachat":
        return Path(name)
    from train.personachat import fetch_personachat

    return fetch_personachat()


def split_count(name: str) -> tuple[str, int | None]:
    """`file.json:400` -> (file.json, 400)."""
    stem, _, count = name.rpartition(":")
    return (stem, int(count)) if stem and count.isdigit() else (name, None)


def tolerance(options: argparse.Namespace) -> dict:
    """The public file has a few bad entries that nobody here can mend; one's own file must be clean."""
    return {"tolerate": 20} if "personachat" in options.data else {}


def has_part(file: Path, part: str) -> bool:
    """Whether a file is `{"train": .., "valid": ..}` and not a plain list, by its first character."""
    with file.open("rb") as opened:
        return opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def public_arguments(arguments: list[str]) -> list[str]:
    """The command line for the card: folders of this machine are cut to their last name."""
    return [Path(a).name if a.startswith(("/", "..", "~")) else a for a in arguments]


def machine() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
