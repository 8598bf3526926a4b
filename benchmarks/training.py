"""Training speed and memory of simpletransformers' ConvAIModel, TRL's SFTTrainer and our recipes convai and sft, side by side.

Run: `python -m benchmarks.training` (minutes on a CPU; `--full`: GPT-2's real shape, much longer; `--json OUT` keeps the figures)

All train every weight of the same untrained GPT-2 on the same dialogues, in batches of 6 as the reference run's, or
sft's default rows; each run is a process of its own, in turn, and the median counts. Tokens are supervised ones, the words of the persona's
replies, so tokens per second compare how soon an epoch is done. ConvAIModel is patched to be importable, nothing else; its
time is that of its training loop, without the reading and padding of the data before it. Memory is the process's peak on
a CPU and torch's on a GPU. On hardware that multiplies bfloat16, sft and TRL do so too, as sft does by default. TRL packs the
same ids into rows of the same length and learns from all of them. MFU is the work of learning the same tokens
(train/run/speed.py) over the machine's own matrix rate in the type that sft multiplies.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "train" / "example_dialogues.json"
KINDS = ("stock", "convai", "trl", "sft")
AIMS = {"convai": 1.5, "sft": 10.0}  # times stock's speed
SHAPES = {
    "small": {"n_embd": 256, "n_layer": 4, "n_head": 4},
    "full": {"n_embd": 768, "n_layer": 12, "n_head": 12},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__.splitlines()[0]
    )
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
        import torch

        from benchmarks.training_runs import measure
        from persona_bot.device import best_dtype, pick_device

        bf16 = not options.no_bf16 and best_dtype(pick_device()) == torch.bfloat16
        print(json.dumps(measure(options.child, options.folder, bf16)))
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
    config = GPT2Config(bos_token_id=0, eos_token_id=0, **shape)
    config.num_labels = 1
    GPT2DoubleHeadsModel(config).save_pretrained(base)


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
    from train.run.facts import machine

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
        work = report["runs"]["sft"][0]
        middle["mfu"] = middle["tokens_per_s"] * work["flops_per_token"] / work["matmul_rate"]
        middle["memory"] = middle["peak_gb"] / report["median"]["stock"]["peak_gb"]
    return report


def table(report: dict) -> str:
    """The medians as lines to read."""
    head = f"{report['shape']} GPT-2, {report['dialogues']} dialogues of {report['data']}, {report['machine']}"
    lines = [
        head,
        f"{'':8}{'tokens/s':>10}{'x stock':>18}{'aim':>7}{'MFU':>7}{'peak GB':>10}{'x stock':>9}",
    ]
    for kind, m in report["median"].items():
        spread = f"{m['speed']:.1f} ({m['speed_lowest']:.1f}-{m['speed_highest']:.1f})"
        aim = f"{AIMS[kind]:g}" if kind in AIMS else ""
        lines.append(
            f"{kind:8}{m['tokens_per_s']:>10.0f}{spread:>18}{aim:>7}{m['mfu']:>7.1%}{m['peak_gb']:>10.2f}{m['memory']:>9.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
