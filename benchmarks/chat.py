"""One visitor: time to the first text, tokens a second, CPU-seconds and memory of a reply, ours beside other engines.

Run: `python -m benchmarks.chat` (minutes; `--json OUT` keeps the figures), or `make bench` for all

    ours          the page's own path: int8 weights, its sampler, no cache of an earlier turn
    ours, later   the same, in the second turn of a conversation: only the new message is read
    generate      transformers' `generate` on the same weights in bfloat16
    ctranslate2   the same weights in int8, where `pip install ctranslate2` was done
    llama.cpp     the base's own 4-bit file, where llama-cpp-python is installed
    stock         simpletransformers' ConvAIModel, an untrained GPT-2 of GPT-2's shape: its speed does not depend on the weights

Every engine writes 20 tokens behind a prompt of about 100, in a process of its own; the runs take turns and medians count.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TOKENS = 20  # of a reply
PERSONA = [
    "i keep bees on my roof.",
    "i used to be a dancer.",
    "my sister is a judge.",
    "i am afraid of the dark.",
    "i cook with garlic.",
]
QUESTIONS = [
    "hello, what do you do for a living?",
    "do you have a family?",
    "what scares you?",
    "what did you do before that?",
    "any pets?",
]
ENGINES = ("stock", "generate", "ctranslate2", "llama.cpp", "ours", "ours, later")
TURNS = ["hi there, how was your day?", "it was fine, i looked after my bees. how was yours?"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs",
        type=int,
        default=3,
        help="processes of each; the median counts (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=max(1, os.cpu_count() // 2),
        help="of every engine (default: half the cores)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--child", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.threads)))
        return
    report = compare(options.runs, options.threads)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def compare(runs: int, threads: int) -> dict:
    """{"threads", "median": {engine: figures}, "runs"}; an engine that is not installed is left out, and said so."""
    results: dict[str, list[dict]] = {}
    for number in range(runs):
        for engine in ENGINES:
            if number and engine not in results:
                continue
            print(f"run {number + 1} of {runs}: {engine} ..", file=sys.stderr)
            command = [
                sys.executable,
                "-m",
                "benchmarks.chat",
                "--child",
                engine,
                "--threads",
                str(threads),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"  left out: {done.stderr.strip().splitlines()[-1][:150]}", file=sys.stderr)
                continue
            results.setdefault(engine, []).append(json.loads(done.stdout.splitlines()[-1]))
    median = {
        engine: {k: statistics.median(run[k] for run in figures) for k in figures[0]}
        for engine, figures in results.items()
    }
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
    }
    start = time.monotonic()
    reply = write[engine]()
    torch.set_num_threads(threads)  # loading for the chat chooses for itself
    ready = time.monotonic() - start
    rows = []
    for question in QUESTIONS[:1] + QUESTIONS:
        pieces = reply(question)
        cpu, began, times = time.process_time(), time.monotonic(), []
        for _ in pieces:
            times.append(time.monotonic() - began)
        rows.append((times[0], len(times) / times[-1], time.process_time() - cpu))
    first, speed, cpu = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    memory = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        / 1e9
    )
    return {
        "first_text_s": first,
        "tokens_per_s": speed,
        "cpu_s_per_reply": cpu,
        "peak_gb": memory,
        "load_s": ready,
    }


def ours(before: int = 0):
    """Each of these returns a function from a question to an iterator with one item a token; what it does at once is not timed."""
    from persona_bot import Settings, load_model
    from persona_bot.persona import Persona

    model = load_model(None, "cpu")
    settings = Settings(seed=0, min_tokens=TOKENS, max_tokens=3 * TOKENS)
    persona = Persona("", tuple(PERSONA))

    def reply(question: str) -> Iterator[None]:
        model.backend.prefixes.clear()
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


def later():
    return ours(before=1)


def prompt_ids():
    """(the default checkpoint, ids of the prompt by question)."""
    from persona_bot.checkpoints.load import load_checkpoint
    from persona_bot.persona import Persona
    from persona_bot.prompt import build_prompt

    checkpoint = load_checkpoint(None, "cpu")
    return (
        checkpoint,
        lambda question: (
            build_prompt(
                checkpoint.layout, Persona("", tuple(PERSONA)), [*TURNS, question], 900
            ).ids
        ),
    )


def generate():
    import threading

    import torch
    from transformers import TextIteratorStreamer

    checkpoint, ids = prompt_ids()
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}

    class Tokens(TextIteratorStreamer):  # one item a token, not a word
        def put(self, value):
            self.text_queue.put("")

    def stream(question: str) -> Iterator[None]:
        streamer = Tokens(checkpoint.tokenizer)
        inputs = torch.tensor([ids(question)])
        length = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
        options = {
            "attention_mask": torch.ones_like(inputs),
            "streamer": streamer,
            **length,
            **sampling,
        }
        thread = threading.Thread(target=checkpoint.model.generate, args=(inputs,), kwargs=options)
        thread.start()
        next(streamer)  # the prompt
        yield from (None for _, _ in zip(range(TOKENS), streamer, strict=False))
        thread.join()

    return stream


def ctranslate2():
    import ctranslate2 as ct2
    import torch

    checkpoint, ids = prompt_ids()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.model.save_pretrained(f"{folder}/model")
        checkpoint.tokenizer.save_pretrained(f"{folder}/model")
        ct2.converters.TransformersConverter(f"{folder}/model").convert(
            f"{folder}/ct2", quantization="int8"
        )
        engine = ct2.Generator(f"{folder}/ct2", intra_threads=torch.get_num_threads())

    def stream(question: str) -> Iterator[None]:
        tokens = checkpoint.tokenizer.convert_ids_to_tokens(ids(question))
        sampling = {
            "sampling_topk": 0,
            "sampling_topp": 0.9,
            "sampling_temperature": 0.7,
            "repetition_penalty": 1.1,
        }
        for _ in engine.generate_tokens(tokens, max_length=TOKENS, min_length=TOKENS, **sampling):
            yield None

    return stream


def llama_cpp():
    import torch
    from llama_cpp import Llama

    from persona_bot.checkpoints.files import BASE_MODEL
    from persona_bot.checkpoints.load import find_base

    _, ids = prompt_ids()
    file = next(find_base(BASE_MODEL).glob("*.gguf"))
    engine = Llama(str(file), n_ctx=1024, n_threads=torch.get_num_threads(), verbose=False)

    def reply(question: str) -> Iterator[None]:
        engine.reset()
        return (
            None
            for _, _ in zip(
                range(TOKENS), engine.generate(ids(question), temp=0.7, top_p=0.9), strict=False
            )
        )

    return reply


def stock():
    from benchmarks.training import EXAMPLE, SHAPES, prepare, stock_model

    folder = tempfile.mkdtemp()
    prepare(Path(folder), EXAMPLE, 10, SHAPES["full"])
    os.chdir(folder)
    model = stock_model(
        {
            "max_length": 1,
            "min_length": 1,
            "do_sample": True,
            "top_k": 0,
            "top_p": 0.9,
            "temperature": 0.7,
            "fp16": False,
        }
    )
    model.model.eval()
    persona = [model.tokenizer.encode(sentence) for sentence in PERSONA]

    def stream(question: str) -> Iterator[None]:
        import torch

        history, written = [model.tokenizer.encode(turn) for turn in [*TURNS, question]], []
        with torch.no_grad():
            # its own loop, one token a call, to see the first one come
            while len(written) < TOKENS:
                written = model.sample_sequence(
                    persona, history, model.tokenizer, model.model, model.args, written
                )
                yield None

    return stream


def table(report: dict) -> str:
    """The medians as lines to read, ratios against stock."""
    lines = [
        f"{'':14}{'first text':>11}{'tokens/s':>10}{'CPU-s a reply':>15}{'x less':>8}{'peak GB':>9}{'load s':>8}"
    ]
    base = report["median"].get("stock", {}).get("cpu_s_per_reply")
    for engine, m in report["median"].items():
        ratio = f"{base / m['cpu_s_per_reply']:.1f}" if base else ""
        lines.append(
            f"{engine:14}{m['first_text_s']:>9.3f} s{m['tokens_per_s']:>10.1f}{m['cpu_s_per_reply']:>15.2f}"
            f"{ratio:>8}{m['peak_gb']:>9.2f}{m['load_s']:>8.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
