"""The command line of train.evaluate, checked before any work."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from persona_bot.errors import UserError
from persona_bot.settings import FLAGS, Settings
from train.metrics.groups import EvalConfig
from train.metrics.table import SELF_CHAT_TURNS


@dataclass(frozen=True)
class EvalOptions:
    """What the command line asks for."""

    config: EvalConfig
    model: str | None
    against: str | None
    device: str | None
    data: str | None
    split: str
    json: Path | None
    replies_out: Path | None
    transcripts: Path | None
    side_by_side: Path | None
    presets: int
    persona: list[str]
    everyday: bool
    visits: bool


def parse(
    arguments: Sequence[str] | None, groups: Collection[str], need_no_file: Collection[str]
) -> EvalOptions:
    """The options; raises UserError before any work when they cannot lead to results."""
    given = arguments_of(groups).parse_args(arguments)
    wanted = given.only.split(",")
    check(given, wanted, groups, need_no_file)
    read = bool(given.data) or set(wanted) <= set(need_no_file)
    known = {
        field.name: getattr(given, field.name)
        for field in fields(EvalConfig)
        if hasattr(given, field.name)
    }
    config = EvalConfig(wanted if read else [], settings=read_settings(given.set), **known)
    names = [field.name for field in fields(EvalOptions) if field.name != "config"]
    return EvalOptions(config, **{name: getattr(given, name) for name in names})


def arguments_of(groups: Collection[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate", description="Score a checkpoint on a file of dialogues."
    )
    add = parser.add_argument
    add("--model", help="Hub repository[@revision] or folder (default: the default model)")
    add("--against", metavar="MODEL", help="score this one too, in the same table")
    add(
        "--data",
        metavar="FILE[:COUNT]",
        help="a file of dialogues, `personachat`, or USER/DATASET of the Hub; --transcripts and some groups do without",
    )
    add("--split", default="valid", help="which part of a file that has parts (default: valid)")
    add("--limit", type=int, help="only the first so many dialogues")
    add("--only", default=",".join(groups), help="some of %(default)s (default: all)")
    add("--as-written", action="store_true", help="also nats of texts as written: `hi , i 'm ok !`")
    add("--baselines", action="store_true", help="score human replies and a constant reply too")
    add("--json", type=Path, metavar="OUT", help="write the scores, settings and times here")
    add("--device")
    add = parser.add_argument_group("replies that are sampled").add_argument
    shown = "(default: %(default)s)"
    add("--replies", type=int, default=300, help=f"how many turns of the file are answered {shown}")
    add(
        "--self-chats",
        type=int,
        default=20,
        help=f"chats of twice {SELF_CHAT_TURNS} replies {shown}",
    )
    add("--probe-times", type=int, default=4, help=f"how often each probe is asked {shown}")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of decoding")
    add("--seed", type=int, default=0)
    add("--replies-out", type=Path, metavar="OUT", help="write the replies here, to be read")
    add("--transcripts", type=Path, metavar="OUT.md", help="ask presets six questions, write here")
    add("--side-by-side", type=Path, metavar="OUT.md", help="the chats of --model and --against")
    add("--presets", type=int, default=8, help=f"how many presets are asked {shown}")
    add(
        "--persona", action="append", default=[], help="ask this one too: preset, file, or `random`"
    )
    add("--everyday", action="store_true", help="transcripts hold a chat of everyday messages too")
    add("--visits", action="store_true", help="transcripts hold five chats of eight turns instead")
    return parser


def check(
    given: argparse.Namespace,
    wanted: Sequence[str],
    groups: Collection[str],
    need_no_file: Collection[str],
) -> None:
    """Raises UserError for what makes no sense."""
    unknown = [name for name in wanted if name not in groups]
    if unknown:
        raise UserError(
            f"--only knows {', '.join(groups)}, not {unknown[0]!r}; name some of these with commas between."
        )
    chats = (given.transcripts or given.side_by_side) and wanted == list(groups)
    if not given.data and not set(wanted) <= set(need_no_file) and not chats:
        raise UserError(
            f"Name a file of dialogues with --data FILE; only --only {','.join(need_no_file)} and --transcripts OUT.md do without."
        )
    if given.side_by_side and not given.against:
        raise UserError("--side-by-side shows two models; name the other one with --against MODEL.")
    read, groups_of_file = given.data, set(wanted) if given.data else set()
    for name, useful, need in (
        ("json", read or set(wanted) <= set(need_no_file), "scores, so --data FILE"),
        ("baselines", read, "--data FILE"),
        ("as_written", groups_of_file & {"nats", "swap"}, "--data FILE, with nats in --only"),
        ("replies_out", "replies" in groups_of_file, "--data FILE, with replies in --only"),
        ("persona", given.transcripts or given.side_by_side, "--transcripts OUT.md"),
        ("visits", given.transcripts, "--transcripts OUT.md"),
        ("everyday", given.transcripts and not given.visits, "--transcripts, not --visits"),
    ):
        flag = f"--{name.replace('_', '-')}"
        if getattr(given, name) and not useful:
            raise UserError(
                f"{flag} does nothing here: it needs {need}; add it, or leave {flag} out."
            )
    for name in ("limit", "replies", "self_chats", "probe_times", "presets"):
        if (number := getattr(given, name)) is not None and number < 1:
            raise UserError(
                f"--{name.replace('_', '-')} must be at least 1, not {number}; leave it out for the default."
            )


def read_settings(pairs: Sequence[str]) -> Settings:
    """`["temperature=0.8", "top_k=40"]` -> Settings; raises UserError for unknown names and bad numbers."""
    values: dict[str, Any] = {}
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
