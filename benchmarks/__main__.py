"""All benchmarks of the chat in one table, kept as docs/benchmark.json and drawn as docs/benchmark.png.

Run: `make bench`, or `python -m benchmarks` in an environment that has train/ and benchmarks/requirements.txt (about 10 minutes)
"""

import argparse
import datetime
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import chat, together, visitors
from benchmarks.children import HALF_THE_CORES

DOCS = Path(__file__).parent.parent / "docs"
PACKAGES = (
    "torch",
    "transformers",
    "gradio",
    "simpletransformers",
    "ctranslate2",
    "llama-cpp-python",
)
INK, ACCENT, QUIET = "#2b2a27", "#2f7d5b", "#b9b4a8"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=2,
        help="processes of each engine; the median counts (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=20, help="of asking for each crowd (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=DOCS,
        help="folder for benchmark.json and benchmark.png (default: docs)",
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="measure nothing: put the figures of benchmark.json into the tables of speed.md",
    )
    options = parser.parse_args()
    if options.write_docs:
        report = json.loads((options.out / "benchmark.json").read_text(encoding="utf-8"))
        write_docs(report, options.out / "speed.md")
        return
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
        "one_visitor": chat.compare(options.runs, HALF_THE_CORES),
        "together": together.compare(options.runs, HALF_THE_CORES),
        "visitors": visitors.measure(options.seconds),
    }
    tables = [
        chat.table(report["one_visitor"]),
        together.table(report["together"]),
        visitors.table(report["visitors"]),
    ]
    print("\n\n".join([f"{report['date']}, {report['machine']}", *tables]))
    options.out.mkdir(exist_ok=True)
    (options.out / "benchmark.json").write_text(
        json.dumps(report, indent=2) + "\n", encoding="utf-8"
    )
    draw(report, options.out / "benchmark.png")
    write_docs(report, options.out / "speed.md")


def write_docs(report: dict, path: Path) -> None:
    """Puts the tables of a report between the marks that the text has for them."""
    if not path.exists():
        return
    alone = chat.ratios(report["one_visitor"]["median"])
    at_once = together.ratios(report["together"], report["one_visitor"]["median"])
    tables = {
        "machine": f"{report['date']}, {report['machine']}.",
        "one visitor": markdown(alone),
        "together": markdown(at_once),
        "visitors": markdown(visitors.rows(report["visitors"])),
    }
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}" if rest else before
    path.write_text(text, encoding="utf-8")


def markdown(rows: list[list[str]]) -> str:
    """A table, its head first."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


def machine() -> str:
    """The processor as the system names it, its cores, and what makes its products fast."""
    info = Path("/proc/cpuinfo")
    lines = (
        dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        if info.exists()
        else {}
    )
    lines = {name.strip(): value.strip() for name, value in lines.items()}
    fast = [
        flag
        for flag in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8")
        if flag in lines.get("flags", "").split()
    ]
    return f"{lines.get('model name', platform.machine())}, {os.cpu_count()} cores, {' '.join(fast) or platform.machine()}"


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def draw(report: dict, path: Path) -> None:
    """CPU-seconds of a reply by engine, and tokens a second by visitors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "font.size": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), width_ratios=(3, 2))
    medians = report["one_visitor"]["median"]
    costs = sorted(((m["cpu_s_per_reply"], name) for name, m in medians.items()), reverse=True)
    bars = left.barh(
        [name for _, name in costs],
        [cost for cost, _ in costs],
        color=[ACCENT if "ours" in n else QUIET for _, n in costs],
    )
    left.bar_label(bars, fmt="%.2f", padding=3)
    left.set(
        title="CPU-seconds for a reply of 20 tokens",
        xlim=(0, max(cost for cost, _ in costs) * 1.12),
    )
    crowds = report["visitors"]["crowds"]
    bars = right.bar(
        [str(count) for count in crowds], [c["tokens_per_s"] for c in crowds.values()], color=ACCENT
    )
    right.bar_label(bars, fmt="%.0f", padding=2)
    right.set(title="Tokens a second through the page", xlabel="visitors at once")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
