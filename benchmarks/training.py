"""Training speed and peak memory of simpletransformers' own ConvAIModel, our recipe convai and our recipe sft, side by side.

Run: `python -m benchmarks.training` (minutes on a CPU; `--full`: GPT-2's real shape, much longer; `--json OUT` keeps the figures)

All three train every weight of the same untrained GPT-2 on the same dialogues, in batches of 6 as the reference run's, or
sft's default rows; each run is a process of its own, in turn, and the median counts. Tokens are supervised ones, the words of the persona's
replies, so tokens per second compare how soon an epoch is done. ConvAIModel is patched to be importable, nothing else; its
time is that of its training loop, without the reading and padding of the data before it. Memory is the process's peak on
a CPU and torch's on a GPU. On hardware that multiplies bfloat16, sft does so too, as it does by default.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "train" / "example_dialogues.json"
KINDS = ("stock", "convai", "sft")
EPOCHS = {"stock": 1, "convai": 2, "sft": 8}  # so that the fast ones take long enough to be timed
AIMS = {"convai": 1.5, "sft": 10.0}  # times stock's speed
SHAPES = {
    "small": {"n_embd": 256, "n_layer": 4, "n_head": 4},
    "full": {"n_embd": 768, "n_layer": 12, "n_head": 12},
}
CONVAI = {
    "train_batch_size": 6,
    "no_save": True,
    "silent": True,
    "manual_seed": 0,
    "overwrite_output_dir": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=EXAMPLE,
        help="Persona-Chat JSON file (default: the example file, repeated)",
    )
    parser.add_argument(
        "--dialogues", type=int, default=24, help="how many to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--runs", type=int, default=3, help="of each; the median counts (default: %(default)s)"
    )
    parser.add_argument(
        "--full", action="store_true", help="GPT-2's 12 layers of 768 instead of 4 of 256"
    )
    parser.add_argument("--no-bf16", action="store_true", help="sft in float32 as the others")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.folder, not options.no_bf16)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(
            Path(folder),
            options.data,
            options.dialogues,
            SHAPES["full" if options.full else "small"],
        )
        report = compare(Path(folder), options)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def prepare(folder: Path, data: Path, count: int, shape: dict) -> None:
    """An untrained GPT-2 with GPT-2's vocabulary size, a tokenizer learnt from the data, and the data as a plain list."""
    import torch
    import transformers
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2DoubleHeadsModel

    entries = json.loads(data.read_text(encoding="utf-8"))
    entries = entries["train"] if isinstance(entries, dict) else entries
    entries = (entries * (count // len(entries) + 1))[:count]
    (folder / "data.json").write_text(json.dumps(entries), encoding="utf-8")
    base = folder / "base"
    base.mkdir()
    texts = [
        text
        for entry in entries
        for text in [*entry["personality"], *entry["utterances"][-1]["history"]]
    ]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts, vocab_size=1_000, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.save_model(str(base))
    torch.manual_seed(0)
    transformers.logging.disable_progress_bar()
    GPT2DoubleHeadsModel(
        GPT2Config(num_labels=1, bos_token_id=0, eos_token_id=0, **shape)
    ).save_pretrained(base)


def compare(folder: Path, options: argparse.Namespace) -> dict:
    """Runs every kind in turn, so that a busy machine is busy for all of them."""
    command = [sys.executable, "-m", "benchmarks.training", "--folder", str(folder)] + [
        "--no-bf16"
    ] * options.no_bf16
    runs: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for number in range(options.runs):
        for kind in KINDS:
            print(f"run {number + 1} of {options.runs}: {kind} ..", file=sys.stderr)
            done = subprocess.run(
                [*command, "--child", kind], stdout=subprocess.PIPE, text=True, check=True
            )
            runs[kind].append(json.loads(done.stdout.splitlines()[-1]))
    report = {
        "shape": "full" if options.full else "small",
        "data": options.data.name,
        "dialogues": options.dialogues,
    }
    report |= {"machine": machine(), "runs": runs, "median": {}}
    for kind in KINDS:
        middle = {
            name: statistics.median(run[name] for run in runs[kind])
            for name in ("tokens", "seconds", "tokens_per_s", "peak_gb")
        }
        report["median"][kind] = middle
        ratios = [
            mine["tokens_per_s"] / stock["tokens_per_s"]
            for mine, stock in zip(runs[kind], runs["stock"], strict=True)
        ]
        middle |= {
            "speed": statistics.median(ratios),
            "speed_lowest": min(ratios),
            "speed_highest": max(ratios),
        }
        middle["memory"] = middle["peak_gb"] / report["median"]["stock"]["peak_gb"]
    return report


def measure(kind: str, folder: Path, bf16: bool) -> dict:
    """One epoch in this process."""
    os.chdir(folder)  # stock leaves folders where it stands
    tokens, seconds = {"stock": run_stock, "convai": run_convai, "sft": lambda: run_sft(bf16)}[
        kind
    ]()
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "peak_gb": peak(),
    }


def run_stock() -> tuple[int, float]:
    """(supervised tokens, seconds)."""
    alone = {
        "no_cache": True,
        "process_count": 1,
        "use_multiprocessing": False,
        "save_steps": -1,
        "save_model_every_epoch": False,
    }
    model = stock_model({**CONVAI, **alone, "num_train_epochs": EPOCHS["stock"]})
    model.train_model("data.json", output_dir="stock", show_running_loss=False)
    return EPOCHS["stock"] * supervised(model.tokenizer), model.seconds


def stock_model(args: dict):
    """ConvAIModel on ./base. Patched: the reader that transformers dropped, and the adding of special tokens."""
    import torch

    from train.recipes.convai import ConvAIModel, StockConvAIModel

    def read(tokenizer, path, *_, **__):
        def ids(value):
            if isinstance(value, str):
                return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(value))
            return (
                {k: ids(v) for k, v in value.items()}
                if isinstance(value, dict)
                else [ids(v) for v in value]
            )

        return ids(json.loads(Path(path).read_text(encoding="utf-8")))

    class Stock(StockConvAIModel):
        add_special_tokens_ = ConvAIModel.add_special_tokens_
        seconds = 0.0

        def train(self, *args, **options):
            started = time.monotonic()
            result = super().train(*args, **options)
            self.seconds = time.monotonic() - started
            return result

    sys.modules[StockConvAIModel.__module__].get_dataset = read
    return Stock("gpt2", "base", args=args, use_cuda=torch.cuda.is_available())


def run_convai() -> tuple[int, float]:
    from train.data.dialogues import read_dialogues
    from train.recipes.convai import train_convai
    from train.recipes.convai_loop import Hooks

    records: list[dict] = []
    args = {**CONVAI, "num_train_epochs": EPOCHS["convai"]}
    train_convai(
        "base",
        read_dialogues("data.json"),
        None,
        Path("convai"),
        args,
        hooks=Hooks(on_step=records.append),
    )
    tokens = EPOCHS["convai"] * supervised(load_base("base").tokenizer)
    return tokens, tokens / records[-1]["tokens_per_s"]


def run_sft(bf16: bool) -> tuple[int, float]:
    from train.data.dialogues import read_dialogues
    from train.data.examples import dialogue_examples
    from train.recipes.sft import train_sft
    from train.run.log import read_log

    base = load_base("base", bf16)
    examples = dialogue_examples(base.layout, read_dialogues("data.json"), base.settings.row_length)
    train_sft(base.model, examples, [], Path("sft"), base.settings)
    tokens = EPOCHS["sft"] * sum(e.supervised for e in examples)
    return tokens, tokens / read_log(Path("sft"))[-1]["tokens_per_s"]


def load_base(folder: str, bf16: bool = True):
    from train.recipes import base_model
    from train.recipes.sft import SftSettings

    settings = SftSettings(epochs=EPOCHS["sft"], lora_rank=0, bf16=bf16, save_every=10**9)
    model, tokenizer, layout, settings = base_model.load_base(folder, settings)
    return argparse.Namespace(model=model, tokenizer=tokenizer, layout=layout, settings=settings)


def supervised(tokenizer) -> int:
    """How many tokens the gold replies of the data have, each with its end."""
    from persona_bot.prompt import find_layout
    from train.data.dialogues import read_dialogues

    layout = find_layout(tokenizer)
    return sum(
        len(layout.encode(u.candidates[-1])) + 1
        for d in read_dialogues("data.json")
        for u in d.utterances
    )


def peak() -> float:
    """GB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        / 1e9
    )


def machine() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def table(report: dict) -> str:
    """The medians as lines to read."""
    head = f"{report['shape']} GPT-2, {report['dialogues']} dialogues of {report['data']}, {report['machine']}"
    lines = [head, f"{'':8}{'tokens/s':>10}{'x stock':>18}{'aim':>7}{'peak GB':>10}{'x stock':>9}"]
    for kind, m in report["median"].items():
        spread = f"{m['speed']:.1f} ({m['speed_lowest']:.1f}-{m['speed_highest']:.1f})"
        aim = f"{AIMS[kind]:g}" if kind in AIMS else ""
        lines.append(
            f"{kind:8}{m['tokens_per_s']:>10.0f}{spread:>18}{aim:>7}{m['peak_gb']:>10.2f}{m['memory']:>9.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
