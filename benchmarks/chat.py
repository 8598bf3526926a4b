"""One visitor: time to the first text, tokens a second, CPU-seconds and memory of a reply, ours beside other engines.

Run: `python -m benchmarks.chat` (minutes; `--json OUT` keeps the figures), or `make bench` for all

    ours          the page's own path: int8 weights, its sampler, no cache of an earlier turn
    ours, later   the same, in the second turn of a conversation: only the new message is read
    generate      transformers' `generate` on the same weights in bfloat16
    ctranslate2   the same weights in int8, where `pip install ctranslate2` was done
    llama.cpp     the base's own 4-bit file, where llama-cpp-python is installed
    stock         simpletransformers' ConvAIModel, an untrained GPT-2 of GPT-2's shape: its speed does not depend on the weights
    ours, GPT-2   the page's path with an untrained GPT-2 of the same shape, and with a GPT

Every engine writes 20 tokens behind a prompt of about 100, in a process of its own; the runs take turns and medians count.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.children import aligned, in_turn, medians, peak_gb, run
from benchmarks.peers import PERSONA, TOKENS, TURNS, Answer, ctranslate2, generate, llama_cpp, stock

if TYPE_CHECKING:
    from persona_bot.replies.reply import Model

QUESTIONS = [
    "hello, what do you do for a living?",
    "do you have a family?",
    "what scares you?",
    "what did you do before that?",
    "any pets?",
]
ENGINES = (
    "stock",
    "generate",
    "ctranslate2",
    "llama.cpp",
    "ours",
    "ours, later",
    "ours, GPT-2",
    "ours, GPT",
)
# bytes of int8 weights that a token reads: all matrices of the layers and the head
WEIGHTS = {
    "ours": 30 * (960 * 576 + 576 * 576 + 3 * 1536 * 576) + 49_152 * 576,
    "ours, GPT-2": 12 * 12 * 768 * 768 + 50_262 * 768,
    "ours, GPT": 12 * 12 * 768 * 768 + 40_483 * 768,
}
WEIGHTS["ours, later"] = WEIGHTS["ours"]


def main() -> None:
    run(__doc__, ENGINES, measure, compare, table)


def compare(runs: int, threads: int) -> dict:
    """{"threads", "median": {engine: figures}, "runs"}."""
    results = in_turn("benchmarks.chat", ENGINES, runs, threads)
    median = {engine: medians(figures) for engine, figures in results.items()}
    return {"threads": threads, "median": median, "runs": results}


def measure(engine: str, threads: int) -> dict:
    """Medians over the questions, after one that warms up."""
    import torch

    torch.set_num_threads(threads)
    write = {
        "stock": stock,
        "generate": generate,
        "ctranslate2": ctranslate2,
        "llama.cpp": llama_cpp,
        "ours": ours,
        "ours, later": later,
        "ours, GPT-2": lambda: ours(kind="gpt2"),
        "ours, GPT": lambda: ours(kind="openai-gpt"),
    }
    start = time.monotonic()
    reply = write[engine]()
    torch.set_num_threads(threads)  # loading for the chat chooses for itself
    ready, loaded = time.monotonic() - start, resident()
    rows = []
    for question in QUESTIONS[:1] + QUESTIONS:
        pieces = reply(question)
        cpu, began, times = time.process_time(), time.monotonic(), []
        for _ in pieces:
            times.append(time.monotonic() - began)
        rows.append((times[0], len(times) / times[-1], time.process_time() - cpu))
    first, speed, cpu = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    figures = {
        "first_text_s": first,
        "tokens_per_s": speed,
        "cpu_s_per_reply": cpu,
        "peak_gb": peak_gb(),
        "loaded_mb": loaded,
        "load_s": ready,
    }
    if engine in WEIGHTS:
        figures["bandwidth_share"] = WEIGHTS[engine] * speed / bandwidth()
    return figures


def resident() -> float:
    """MB that this process holds now; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * resource.getpagesize() / 1e6


def bandwidth() -> float:
    """Bytes a second that this many threads read from memory: the best of some sums over 256 MB."""
    import torch

    block, best = torch.ones(64 << 20), float("inf")
    for _ in range(6):
        began = time.monotonic()
        block.sum()
        best = min(best, time.monotonic() - began)
    return block.nbytes / best


def load(kind: str | None) -> "Model":
    """The default model, or an untrained one of a kind of convai_models."""
    from benchmarks import convai_models
    from persona_bot import load_model

    if kind is None:
        return load_model(None, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        return load_model(str(convai_models.make(kind, Path(folder))), "cpu")


def ours(before: int = 0, kind: str | None = None) -> Answer:
    """Each of these returns a function from a question to an iterator with one item a token; what it does at once is not timed."""
    from persona_bot import Settings
    from persona_bot.persona import Persona

    model = load(kind)
    settings = Settings(seed=0, min_tokens=TOKENS, max_tokens=3 * TOKENS)
    persona = Persona("", tuple(PERSONA))

    def reply(question: str) -> Iterator[None]:
        forget(model)
        if before:
            list(model.reply(persona, TURNS[:before], settings))
        return stream(question)

    def stream(question: str) -> Iterator[None]:
        written = model.reply(persona, [*TURNS, question], settings)
        for _ in written:
            yield None
            if written.num_tokens >= TOKENS:
                return

    return reply


def forget(model: Any) -> None:
    """Nothing of any reply so far is kept: the next one reads its whole prompt. `model`: with an engine of ours."""
    model.backend.engine.reap_finished()
    model.backend.prefixes.clear()


def later() -> Answer:
    return ours(before=1)


def ratios(median: dict[str, dict]) -> list[list[str]]:
    """Rows for the documents: CPU-seconds also as how many times as many stock takes, where stock was measured."""
    head = "engine, CPU-s a reply, stock over it, first text s, tokens/s, of memory speed, MB after loading, peak GB, load s"
    rows, stock_s = [head.split(", ")], median.get("stock", {}).get("cpu_s_per_reply")
    for engine, m in median.items():
        share = f"{m['bandwidth_share']:.0%}" if "bandwidth_share" in m else ""
        over = f"{stock_s / m['cpu_s_per_reply']:.1f}" if stock_s else ""
        rows.append([engine, f"{m['cpu_s_per_reply']:.2f}", over, f"{m['first_text_s']:.2f}"])
        rows[-1] += [f"{m['tokens_per_s']:.0f}", share, f"{m.get('loaded_mb', 0):.0f}"]
        rows[-1] += [f"{m['peak_gb']:.2f}", f"{m['load_s']:.1f}"]
    return rows


def table(report: dict) -> str:
    """The medians as lines to read."""
    return aligned(ratios(report["median"]))


if __name__ == "__main__":
    main()
