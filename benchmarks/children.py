"""Engines that are measured in processes of their own: the options of such a benchmark, and its runs in turn."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HALF_THE_CORES = max(1, (os.cpu_count() or 1) // 2)


def run(
    text: str,
    engines: Sequence[str],
    measure: Callable[[str, int], dict],
    compare: Callable[[int, int], dict],
    table: Callable[[dict], str],
) -> None:
    """The main program of such a benchmark: prints `table(compare(runs, threads))`, or as a child `measure(engine, threads)`."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    told = "processes of each; the median counts (default: %(default)s)"
    parser.add_argument("--runs", type=int, default=2, help=told)
    told = "of every engine (default: half the cores)"
    parser.add_argument("--threads", type=int, default=HALF_THE_CORES, help=told)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--child", choices=engines, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.threads)))
        return
    report = compare(options.runs, options.threads)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def in_turn(module: str, engines: Sequence[str], runs: int, threads: int) -> dict[str, list[dict]]:
    """{engine: the figures of its runs}, each from `python -m module --child engine`.

    The engines take turns, so that a busy machine is busy for all; one that is not installed is left out, and said so.
    """
    results: dict[str, list[dict]] = {}
    for number in range(runs):
        for engine in engines if number == 0 else list(results):
            print(f"{module}, run {number + 1} of {runs}: {engine} ..", file=sys.stderr)
            command = [sys.executable, "-m", module, "--child", engine, "--threads", str(threads)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"  left out: {done.stderr.strip().splitlines()[-1][:150]}", file=sys.stderr)
                continue
            results.setdefault(engine, []).append(json.loads(done.stdout.splitlines()[-1]))
    return results


def medians(figures: Sequence[dict]) -> dict:
    return {name: statistics.median(one[name] for one in figures) for name in figures[0]}


def peak_gb() -> float:
    """The most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table to read, its head first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)
