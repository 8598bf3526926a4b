"""Scores any checkpoint that the chat loads on a file of dialogues: a table, and JSON on request.

Run: `python -m train.evaluate --model M --data FILE`; a quick look: `--limit 50 --only nats,hits`; all options: `--help`.

    nats        how likely the gold replies are; the one loss that compares models with different tokenizers
    swap        the same with another dialogue's persona, less the above: what knowing the persona is worth
    hits        hits@1 of the file's candidates by likelihood and, where there is one, by the ranking head
    replies     what sampled replies are like beside the gold ones
    selfchat    how often a speaker repeats itself when two personas of the file talk
    probes      questions that the persona answers (recall_probes.json)
    convai      simpletransformers' own two numbers, for checkpoints with a ranking head

Human replies and a constant reply are scored beside with `--baselines`.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from tqdm import tqdm

from persona_bot.checkpoints.load import Checkpoint, load_checkpoint
from persona_bot.errors import UserError
from persona_bot.replies.local import LocalModel
from persona_bot.settings import FLAGS, Settings
from train.data.dialogues import Dialogue, read_dialogues
from train.metrics import generation_eval, likelihood, ranking_eval, text
from train.metrics.convai import convai_scores
from train.metrics.table import SELF_CHAT_TURNS, plain_table


@dataclass(frozen=True)
class Wanted:
    """What is scored and how much of it. SmolLM2-135M takes about an hour of one CPU core for 500 dialogues, half of it for `hits`."""

    groups: Sequence[str] = (
        "nats",
        "served",
        "swap",
        "hits",
        "replies",
        "selfchat",
        "probes",
        "convai",
    )
    limit: int | None = None  # the first so many dialogues
    as_written: bool = False
    baselines: bool = False
    replies: int = 300  # turns of the file that are answered
    self_chats: int = 20  # chats, each of twice SELF_CHAT_TURNS replies
    probe_times: int = 4  # how often each recall probe is asked
    settings: Settings = Settings()
    seed: int = 0
    replies_out: Path | None = None


def evaluate(
    checkpoint: Checkpoint,
    dialogues: Sequence[Dialogue],
    wanted: Wanted | None = None,
    data: str | None = None,
) -> dict:
    """All wanted scores as one JSON object; `data` names the file in it. Raises UserError for dialogues that cannot be scored."""
    wanted = wanted or Wanted()
    dialogues = dialogues[: wanted.limit]
    report = {
        "model": checkpoint.name,
        "data": data,
        "dialogues": len(dialogues),
        "replies": sum(len(dialogue.utterances) for dialogue in dialogues),
        "seed": wanted.seed,
        "decoding": asdict(wanted.settings),
        "scores": {},
        "seconds": {},
    }
    served = set(wanted.groups) & set(AS_SERVED)
    model = LocalModel.served(checkpoint) if served else LocalModel.plain(checkpoint)
    for group in wanted.groups:
        started = time.monotonic()
        GROUPS[group](checkpoint, model, dialogues, wanted, report)
        report["seconds"][group] = round(time.monotonic() - started, 1)
    if wanted.baselines:
        report["baselines"] = text.baselines(dialogues)
    return report


def evaluate_folder(folder: Path | str, dialogues: Sequence[Dialogue]) -> dict:
    """The scores of a checkpoint folder on a few held-out dialogues, in minutes: what train.finetune ends with."""
    groups = [g for g in Wanted.groups if g != "hits" or text.max_candidates(dialogues) > 1]
    return evaluate(
        load_checkpoint(str(folder), double_heads=True),
        dialogues,
        Wanted(groups, replies=100, self_chats=5, probe_times=1),
    )


def score_nats(
    checkpoint: Checkpoint,
    model: LocalModel,
    dialogues: Sequence[Dialogue],
    wanted: Wanted,
    report: dict,
) -> None:
    golds = text.gold_replies(dialogues)
    nats = likelihood.gold_nats(checkpoint, dialogues, text.own_personas(dialogues), bar("nats"))
    report["scores"] |= text.likelihood_scores(nats, golds)
    if wanted.as_written:
        layout = copy.copy(checkpoint.layout)
        layout.tidy = str  # the convai layout takes texts as they are anyway
        nats = likelihood.gold_nats(
            replace(checkpoint, layout=layout),
            dialogues,
            text.own_personas(dialogues),
            bar("nats as written"),
        )
        report["scores"] |= {
            f"{name}_as_written": value
            for name, value in text.likelihood_scores(nats, golds).items()
        }


def score_served(
    checkpoint: Checkpoint,
    model: LocalModel,
    dialogues: Sequence[Dialogue],
    wanted: Wanted,
    report: dict,
) -> None:
    """Nats of the weights as they chat: beside `nats`, what int8 costs."""
    nats = likelihood.served_nats(model, dialogues, bar("nats, as served"))
    report["scores"]["nats_per_reply_served"] = text.mean(nats)


def score_swap(
    checkpoint: Checkpoint,
    model: LocalModel,
    dialogues: Sequence[Dialogue],
    wanted: Wanted,
    report: dict,
) -> None:
    if "nats_per_reply" not in report["scores"]:
        score_nats(checkpoint, model, dialogues, wanted, report)
    nats = likelihood.gold_nats(
        checkpoint, dialogues, text.other_personas(dialogues), bar("nats, persona swapped")
    )
    report["scores"]["persona_swap_gain"] = text.mean(nats) - report["scores"]["nats_per_reply"]


def score_hits(
    checkpoint: Checkpoint,
    model: LocalModel,
    dialogues: Sequence[Dialogue],
    wanted: Wanted,
    report: dict,
) -> None:
    if text.max_candidates(dialogues) < 2:
        raise UserError(
            "The file has a single candidate for each reply, so nothing can be ranked; leave hits out of --only."
        )
    hits = ranking_eval.candidate_hits(checkpoint, model.backend, dialogues, bar("hits@1"))
    report["scores"] |= {f"hits_{name}": value for name, value in hits.items()}


def score_replies(
    checkpoint: Checkpoint,
    model: LocalModel,
    dialogues: Sequence[Dialogue],
    wanted: Wanted,
    report: dict,
) -> None:
    replies = generation_eval.reply_to_file(
        model, dialogues, wanted.replies, wanted.settings, wanted.seed, bar("replies")
    )
    report["generated"] = len(replies)
    report["scores"] |= text.text_scores(dialogues, [(r.dialogue, r.text, r.gold) for r in replies])
    report["human_on_the_same_turns"] = text.text_scores(
        dialogues, [(r.dialogue, r.gold, r.gold) for r in replies]
    )
    if wanted.replies_out:
        wanted.replies_out.write_text(
            "\n".join(readable(r, dialogues[r.dialogue]) for r in replies), encoding="utf-8"
        )


def score_selfchat(
    checkpoint: Checkpoint,
    model: LocalModel,
    dialogues: Sequence[Dialogue],
    wanted: Wanted,
    report: dict,
) -> None:
    chats = generation_eval.self_chats(
        model,
        dialogues,
        wanted.self_chats,
        SELF_CHAT_TURNS,
        wanted.settings,
        wanted.seed,
        bar("self-chats"),
    )
    report["scores"]["repetition"] = text.repetition(chats)
    report["scores"]["repetition_first_half"] = text.repetition(
        [chat[: SELF_CHAT_TURNS // 2] for chat in chats]
    )


def score_probes(
    checkpoint: Checkpoint,
    model: LocalModel,
    dialogues: Sequence[Dialogue],
    wanted: Wanted,
    report: dict,
) -> None:
    answers = generation_eval.ask_probes(
        model,
        generation_eval.read_probes(),
        wanted.probe_times,
        wanted.settings,
        wanted.seed,
        bar("recall probes"),
    )
    report["scores"]["recall_probes"] = text.mean(answer.right for answer in answers)
    report["wrong_answers"] = [
        {"persona": " ".join(a.probe.persona), "question": a.probe.question, "answer": a.text}
        for a in answers
        if not a.right
    ]


def score_convai(
    checkpoint: Checkpoint,
    model: LocalModel,
    dialogues: Sequence[Dialogue],
    wanted: Wanted,
    report: dict,
) -> None:
    if checkpoint.ranking_head:
        report["scores"] |= convai_scores(checkpoint, dialogues, bar("as ConvAIModel"))


AS_SERVED = ("served", "hits", "replies", "selfchat", "probes")  # as the app does it
GROUPS = {
    "nats": score_nats,
    "served": score_served,
    "swap": score_swap,
    "hits": score_hits,
    "replies": score_replies,
    "selfchat": score_selfchat,
    "probes": score_probes,
    "convai": score_convai,
}


def readable(reply: generation_eval.Reply, dialogue: Dialogue) -> str:
    """A generated reply for reading: the persona, what was said (<), the reply (>) and the real one (=)."""
    return f"{' '.join(dialogue.personality)}\n  < {reply.history[-1]}\n  > {reply.text}\n  = {reply.gold}\n"


def bar(name: str):
    """A progress bar with the time left, on stderr."""
    return lambda items: tqdm(items, desc=name, leave=False, dynamic_ncols=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; its `wanted` is what to score. Raises UserError for values that make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate", description="Score a checkpoint on a file of dialogues."
    )
    parser.add_argument(
        "--model", help="Hub repository[@revision] or folder (default: the default model)"
    )
    parser.add_argument(
        "--data", help="Persona-Chat JSON file; --only probes and --transcripts do without"
    )
    parser.add_argument(
        "--split", default="valid", help="which part of a file that has parts (default: valid)"
    )
    parser.add_argument("--limit", type=int, help="only the first so many dialogues")
    parser.add_argument(
        "--only", default=",".join(GROUPS), help="some of %(default)s (default: all)"
    )
    parser.add_argument(
        "--as-written",
        action="store_true",
        help="also nats of texts as the file writes them: `hi , i 'm ok !`",
    )
    parser.add_argument(
        "--baselines", action="store_true", help="score human replies and a constant reply too"
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write the scores, settings and times here"
    )
    parser.add_argument("--device")
    group = parser.add_argument_group("replies that are sampled")
    group.add_argument(
        "--replies",
        type=int,
        default=300,
        help="how many turns of the file are answered (default: %(default)s)",
    )
    group.add_argument(
        "--self-chats",
        type=int,
        default=20,
        help=f"chats of twice {SELF_CHAT_TURNS} replies (default: %(default)s)",
    )
    group.add_argument(
        "--probe-times",
        type=int,
        default=4,
        help="how often each recall probe is asked (default: %(default)s)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a decoding setting other than the app's",
    )
    group.add_argument("--seed", type=int, default=0)
    group.add_argument(
        "--replies-out",
        type=Path,
        metavar="OUT",
        help="write the replies to the file's turns here, to be read",
    )
    group.add_argument(
        "--transcripts",
        type=Path,
        metavar="OUT.md",
        help="ask presets six questions and write the chats here",
    )
    group.add_argument(
        "--presets", type=int, default=8, help="how many presets are asked (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    check(options)
    given = {
        field.name: getattr(options, field.name)
        for field in fields(Wanted)
        if hasattr(options, field.name)
    }
    groups = options.only.split(",") if options.data or options.only == "probes" else []
    options.wanted = Wanted(groups=groups, settings=read_settings(options.set), **given)
    return options


def check(options: argparse.Namespace) -> None:
    """Raises UserError before any work when the command line cannot lead to results."""
    unknown = [name for name in options.only.split(",") if name not in GROUPS]
    if unknown:
        raise UserError(
            f"--only knows {', '.join(GROUPS)}, not {unknown[0]!r}; name some of these with commas between."
        )
    everything = options.only == ",".join(GROUPS)
    if not options.data and options.only != "probes" and not (options.transcripts and everything):
        raise UserError(
            "Name a file of dialogues with --data FILE; only --only probes and --transcripts OUT.md do without."
        )
    for name in ("limit", "replies", "self_chats", "probe_times", "presets"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise UserError(
                f"--{name.replace('_', '-')} must be at least 1, not {number}; leave it out for the default."
            )
    for out in (options.json, options.replies_out, options.transcripts):
        if out and not out.absolute().parent.is_dir():
            raise UserError(
                f"The folder of {out} does not exist; make it first or write somewhere else."
            )


def read_settings(pairs: Sequence[str]) -> Settings:
    """`["temperature=0.8", "top_k=40"]` -> Settings; raises UserError for unknown names and bad numbers."""
    values = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in FLAGS:
            raise UserError(
                f"--set knows {', '.join(FLAGS)}, not {name!r}; write it like --set temperature=0.8."
            )
        try:
            values[name] = float(value)
        except ValueError:
            raise UserError(
                f"--set {name} needs a number, not {value!r}; write it like --set temperature=0.8."
            ) from None
    return Settings(**values)


def run(options: argparse.Namespace) -> None:
    """Loads, scores, prints and writes what the command line asks for."""
    dialogues = read_dialogues(options.data, options.split) if options.data else []
    checkpoint = load_checkpoint(options.model, options.device, double_heads=True)
    if options.wanted.groups:
        report = evaluate(
            checkpoint, dialogues, options.wanted, options.data and Path(options.data).name
        )
        print(
            f"{report['model']} on {report['dialogues']:,} dialogues, {report['replies']:,} replies"
        )
        print(plain_table(report["scores"], report.get("baselines", {}).get("human")))
        if options.json:
            options.json.write_text(
                json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
    if options.transcripts:
        text = generation_eval.transcripts(
            LocalModel.served(checkpoint),
            options.presets,
            options.wanted.settings,
            options.seed,
            bar("transcripts"),
        )
        options.transcripts.write_text(f"# What {checkpoint.name} says\n\n{text}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        run(parse(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
