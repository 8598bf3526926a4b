"""Sixteen replies at once in one process: our engine beside transformers' continuous batching.

Run: `python -m benchmarks.together` (two minutes), or `make bench` for all

    ours        the page's own path, a thread for each visitor of one persona: int8 weights, its sampler
    others      the same, each with a persona of another beginning: nothing is read once for all
    continuous  transformers' ContinuousBatchingManager on the same weights in bfloat16, which sorts out who comes when by itself

Each writes 20 tokens behind prompts of about 100, all asked for at the same moment; rounds take turns and medians count.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from benchmarks.chat import QUESTIONS, forget, load
from benchmarks.children import aligned, in_turn, medians, run
from benchmarks.peers import PERSONA, TOKENS, TURNS, prompt_ids

# what asks for all replies and waits for them, telling when each token came; what ends the engine
Engine = tuple[Callable[[], list[list[float]]], Callable[[], object]]

COUNT = 16
ENGINES = ("ours", "ours, others", "ours, GPT-2", "ours, GPT", "continuous")
ROUNDS = 5
# a first sentence for each visitor, so that no two prompts have anything in common
FIRST = "i sail,we farm,my cat bites,cars are fun,he sings,no one cooks,trees grow,both are old,four kids,gold is mine,"
FIRST += "all are red,never ill,big hands,snow falls,two dogs,you win"


def main() -> None:
    run(__doc__, ENGINES, measure, compare, table)


def compare(runs: int, threads: int) -> dict[str, dict]:
    """{engine: medians}."""
    results = in_turn("benchmarks.together", ENGINES, runs, threads)
    return {engine: medians(found) for engine, found in results.items()}


def measure(engine: str, threads: int) -> dict:
    """Medians of some rounds, after one that warms up."""
    import torch

    ways = {
        "ours": ours,
        "ours, others": lambda threads: ours(threads, first=FIRST.split(",")),
        "ours, GPT-2": lambda threads: ours(threads, "gpt2"),
        "ours, GPT": lambda threads: ours(threads, "openai-gpt"),
        "continuous": continuous,
    }
    ask, stop = ways[engine](threads)
    torch.set_num_threads(threads)  # loading for the chat chooses for itself
    rounds = []
    for _ in range(1 + ROUNDS):
        cpu, began = time.process_time(), time.monotonic()
        times = ask()  # when each token of each reply came
        took = max(reply[-1] for reply in times) - began
        firsts = [reply[0] - began for reply in times]
        rounds.append(
            {
                "tokens_per_s": sum(map(len, times)) / took,
                "first_text_s": statistics.median(firsts),
                "longest_first_text_s": max(firsts),
                "cpu_s_per_reply": (time.process_time() - cpu) / COUNT,
            }
        )
    stop()
    return medians(rounds[1:])


def ours(threads: int, kind: str | None = None, first: Sequence[str] = ()) -> Engine:
    from persona_bot import Settings
    from persona_bot.persona import Persona

    model = load(kind)
    personas = [Persona("", (f"{line}.", *PERSONA)) for line in first]
    personas = personas or [Persona("", tuple(PERSONA))]

    def write(number: int) -> list[float]:
        settings = Settings(seed=number, min_tokens=TOKENS, max_tokens=3 * TOKENS)
        question, times = QUESTIONS[number % len(QUESTIONS)], []
        persona = personas[number % len(personas)]
        reply = model.reply(persona, [*TURNS, question], settings)
        with closing(reply):
            for _ in reply:
                times.append(time.monotonic())
                if reply.num_tokens >= TOKENS:
                    break
        return times

    def ask() -> list[list[float]]:
        forget(model)
        with ThreadPoolExecutor(COUNT) as visitors:
            return list(visitors.map(write, range(COUNT)))

    return ask, lambda: None


def continuous(threads: int) -> Engine:
    import torch
    from transformers import ContinuousBatchingConfig, GenerationConfig

    torch.set_num_threads(threads)  # before its thread begins
    checkpoint, ids = prompt_ids()
    prompts = [ids(QUESTIONS[number % len(QUESTIONS)]) for number in range(COUNT)]
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
    config = GenerationConfig(max_new_tokens=TOKENS, eos_token_id=-1, pad_token_id=0, **sampling)
    # it cannot ask a CPU for its free memory
    blocks = ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=512)
    model: Any = checkpoint.model  # what batches is not in the class that all models have
    manager = model.to(torch.bfloat16).init_continuous_batching(config, blocks)
    manager.start()

    def ask() -> list[list[float]]:
        names = manager.add_requests(prompts, max_new_tokens=TOKENS, streaming=True)
        times: dict[str, list[float]] = {}
        ended = 0
        while ended < len(names):
            if result := manager.get_result(timeout=60):
                times.setdefault(result.request_id, []).append(time.monotonic())
                ended += result.is_finished()
        return list(times.values())

    return ask, manager.stop


def ratios(report: dict[str, dict], alone: dict[str, dict]) -> list[list[str]]:
    """Rows for the documents, with what a reply costs beside one that is written alone."""
    head = "engine, tokens/s, first text s, the longest s, CPU-s a reply, of one alone"
    rows = [head.split(", ")]
    for engine, m in report.items():
        cost = m["cpu_s_per_reply"]
        one = alone.get("ours" if engine == "ours, others" else engine)
        share = f"{cost / one['cpu_s_per_reply']:.2f}" if one else ""
        waits = [f"{m['first_text_s']:.2f}", f"{m['longest_first_text_s']:.2f}"]
        rows.append([engine, f"{m['tokens_per_s']:.0f}", *waits, f"{cost:.3f}", share])
    return rows


def table(report: dict[str, dict]) -> str:
    """The medians as lines to read."""
    return aligned(ratios(report, {}))


if __name__ == "__main__":
    main()
