"""Scores any checkpoint that the chat loads on a file of dialogues: a table, and JSON on request.

Run: `python -m train.evaluate --model M --data FILE`; a quick look: `--limit 50 --only nats,hits`; all options: `--help`.

`--only` takes groups of scores (train/metrics/groups.py says what each is). Human replies and a constant reply are scored
beside with `--baselines`, another model with `--against`, with the replies of both side by side in `--side-by-side OUT.md`.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from persona_bot.checkpoints.load import Checkpoint, load_checkpoint
from persona_bot.errors import exit_on_error
from persona_bot.persona import Persona, find_persona, load_presets
from persona_bot.replies.local import LocalModel
from persona_bot.replies.reply import Model
from train.data.dialogues import Dialogue
from train.data.fitting import that_fit
from train.data.sources import plural, read_source, split_count
from train.metrics import text
from train.metrics.evaluate_options import EvalOptions, parse
from train.metrics.groups import AS_SERVED, GROUPS, NEED_NO_FILE, EvalConfig, Work, bar
from train.metrics.likelihood import as_written
from train.metrics.table import compared_table, plain_table
from train.metrics.transcripts import EVERYDAY, QUESTIONS, VISITS, side_by_side, transcripts
from train.run.command import check_outputs, write
from train.run.facts import source_name


def evaluate(
    checkpoint: Checkpoint,
    dialogues: Sequence[Dialogue],
    config: EvalConfig | None = None,
    data: str | None = None,
    replies_out: Path | None = None,
) -> dict:
    """All wanted scores as one JSON object; `data` names the file in it. Raises UserError for dialogues that cannot be scored."""
    config = config or EvalConfig()
    dialogues = dialogues[: config.limit]
    scores: dict[str, float] = {}
    facts: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    served = set(config.groups) & set(AS_SERVED)
    model = LocalModel.served(checkpoint) if served else LocalModel.plain(checkpoint)
    for group in config.groups:
        started = time.monotonic()
        result = GROUPS[group](Work(checkpoint, model, dialogues, config, scores))
        scores |= result.scores
        facts |= result.facts
        seconds[group] = round(time.monotonic() - started, 1)
        if result.readable and replies_out:
            write(replies_out, result.readable)
    if config.baselines:
        facts["baselines"] = text.baselines(dialogues)
    return {
        "model": checkpoint.name,
        "data": data,
        "dialogues": len(dialogues),
        "replies": sum(len(dialogue.utterances) for dialogue in dialogues),
        "seed": config.seed,
        "decoding": asdict(config.settings),
        "scores": scores,
        "seconds": seconds,
        **facts,
    }


def evaluate_folder(folder: Path | str, dialogues: Sequence[Dialogue]) -> dict:
    """The scores of a checkpoint folder on a few held-out dialogues, in minutes: what train.finetune ends with."""
    slow = {"contradictions", "everyday", "greetings"}
    groups = [group for group in EvalConfig.groups if group not in slow]
    checkpoint = load_checkpoint(str(folder), double_heads=True)
    config = EvalConfig(groups, replies=100, self_chats=5, probe_times=1)
    dialogues = that_can_be_scored(checkpoint, dialogues, config, may_be_none=True)
    return evaluate(checkpoint, dialogues, config) if dialogues else {}


def that_can_be_scored(
    checkpoint: Checkpoint,
    dialogues: Sequence[Dialogue],
    config: EvalConfig,
    may_be_none: bool = False,
) -> Sequence[Dialogue]:
    """The dialogues without the replies that do not fit in the model; stderr counts them. Raises UserError as that_fit does."""
    if not dialogues:
        return dialogues
    room = config.settings.max_tokens if {"replies", "selfchat"} & set(config.groups) else 0
    for one in [checkpoint, *([as_written(checkpoint)] if config.as_written else [])]:
        positions = one.max_positions
        dialogues = that_fit(one.layout, dialogues, positions, room, may_be_none=may_be_none)
    return dialogues


def run(options: EvalOptions) -> None:
    """Loads, scores, prints and writes what the command line asks for."""
    dialogues = read_source(options.data, options.split) if options.data else []
    read = [split_count(options.data or "")[0], *options.persona]
    outs = (options.json, options.replies_out, options.transcripts, options.side_by_side)
    check_outputs(*outs, read=read)
    personas = asked_personas(options)
    checkpoint = load_checkpoint(options.model, options.device, double_heads=True)
    other = None
    if options.against:
        other = load_checkpoint(options.against, options.device, double_heads=True)
    if options.config.groups:
        score(options, checkpoint, other, dialogues)
    settings, seed = options.config.settings, options.config.seed
    if options.transcripts:
        scripts: Sequence[Sequence[str]] = (
            (QUESTIONS, EVERYDAY) if options.everyday else (QUESTIONS,)
        )
        if options.visits:
            scripts = [visit.split("|") for visit in VISITS]
        model = LocalModel.served(checkpoint)
        chats = transcripts(model, personas, settings, seed, bar("transcripts"), scripts)
        write(options.transcripts, f"# What {checkpoint.name} says\n\n{chats}")
    if options.side_by_side and other:
        same = other.name == checkpoint.name
        name = f"{other.name} (before)" if same else other.name
        models: dict[str, Model] = {name: LocalModel.served(other)}
        models[checkpoint.name] = LocalModel.served(checkpoint)
        chats = side_by_side(models, personas, settings, seed, bar("side by side"))
        write(options.side_by_side, chats)


def score(
    options: EvalOptions,
    checkpoint: Checkpoint,
    other: Checkpoint | None,
    dialogues: Sequence[Dialogue],
) -> None:
    """Scores, prints the table and writes the JSON."""
    data = source_name(options.data) if options.data else None
    dialogues = dialogues[: options.config.limit]
    for one in [checkpoint, *([other] if other else [])]:
        dialogues = that_can_be_scored(one, dialogues, options.config)
    report = evaluate(checkpoint, dialogues, options.config, data, options.replies_out)
    about = "no file" if not data else plural(report["dialogues"], "dialogue")
    print(f"{report['model']} on {about}, {plural(report['replies'], 'reply')}")
    if other:
        against = evaluate(other, dialogues, options.config, data)
        print(f"against {options.against}")
        print(compared_table(report["scores"], against["scores"]))
        report["against"] = {"model": options.against, "scores": against["scores"]}
    else:
        print(plain_table(report["scores"], report.get("baselines", {}).get("human")))
    if options.json:
        write(options.json, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def asked_personas(options: EvalOptions) -> list[Persona]:
    """The first presets, and whoever `--persona` names."""
    named = [find_persona(name, options.config.seed + k) for k, name in enumerate(options.persona)]
    return [*list(load_presets().values())[: options.presets], *named]


def main(arguments: Sequence[str] | None = None) -> None:
    with exit_on_error():
        run(parse(arguments, GROUPS, NEED_NO_FILE))


if __name__ == "__main__":
    main()
