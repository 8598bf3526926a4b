"""Many visitors: replies through the real page's API by 1, 4, 16, 64 and 100 people at once.

Run: `python -m benchmarks.visitors` (minutes; `--json OUT` keeps the figures), or `make bench` for all

`python app.py` is started as anyone starts it; each visitor asks over HTTP, reads the stream to its end, and asks again at
once. Tokens are those of the texts that arrived. A visitor waits for the first text from the moment of asking, queue included.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from benchmarks.chat import QUESTIONS
from benchmarks.children import aligned
from benchmarks.peers import PERSONA, TURNS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CROWDS = (1, 4, 16, 64, 100)
APP = Path(__file__).parent.parent / "app.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=20, help="of asking for each crowd (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args()
    report = measure(options.seconds)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(seconds: float) -> dict:
    """{"page_s", "ready_s", "memory_gb", "crowds": {visitors: figures}}"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, began = f"http://127.0.0.1:{port}", time.monotonic()
    page = subprocess.Popen(
        [sys.executable, str(APP), "--host", "127.0.0.1", "--port", str(port), "--unlimited"],
        stdout=subprocess.DEVNULL,
    )
    try:
        shown, ready = wait(url, began), wait(url + "/healthz", began)
        ask(url, 0)  # the first reply warms the model up
        crowds = {count: crowd(url, count, seconds) for count in CROWDS}
        return {
            "page_s": shown,
            "ready_s": ready,
            "memory_gb": resident(page.pid),
            "crowds": crowds,
        }
    finally:
        page.terminate()
        page.wait(20)


def wait(url: str, began: float) -> float:
    """Seconds since `began` when the address answers with 200."""
    while time.monotonic() - began < 120:
        try:
            if httpx.get(url, timeout=30).status_code == 200:
                return time.monotonic() - began
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit("The page did not open within two minutes.")


def crowd(url: str, count: int, seconds: float) -> dict:
    """`count` visitors who ask again and again for `seconds`; of a reply that is written beyond them, its share within counts."""
    print(f"{count} visitors ..", file=sys.stderr)
    # seconds to the first text, share within the time, the reply
    results: list[tuple[float, float, str]] = []
    lost: list[Exception] = []
    began = time.monotonic()

    def visit(number: int) -> None:
        turn = 0
        while (left := began + seconds - time.monotonic()) > 0:
            try:
                first, took, text = ask(url, 1000 * number + turn)
                # of the time from its first text to its last
                within = (left - first) / max(took - first, 1e-3)
                results.append((first, min(max(within, 0.0), 1.0), text))
            except (RuntimeError, httpx.HTTPError) as error:
                lost.append(error)
            turn += 1

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits = sorted(first for first, _, _ in results)
    return {
        "replies": len(results),
        "lost": len(lost) + sum(not text for _, _, text in results),
        "tokens_per_s": sum(share * len(tokenizer()(text).input_ids) for _, share, text in results)
        / seconds,
        "first_text_s": statistics.median(waits),
        "first_text_s_95": waits[int(0.95 * (len(waits) - 1))],
        "first_text_s_most": waits[-1],
    }


def ask(url: str, seed: int) -> tuple[float, float, str]:
    """(seconds to the first text, to the last, the reply), through the page's documented API."""
    began, text = time.monotonic(), ""
    first: float | None = None
    data = [PERSONA, [*TURNS, QUESTIONS[0]], 0.7, 0.9, 0, 20, 60, 1.1, seed, 1]
    # reading the certificates anew would cost more than a reply
    with httpx.Client(timeout=300, verify=False) as http:
        started = http.post(f"{url}/gradio_api/call/chat", json={"data": data})
        started.raise_for_status()
        with http.stream(
            "GET", f"{url}/gradio_api/call/chat/{started.json()['event_id']}"
        ) as answer:
            for line in answer.iter_lines():
                if line == "event: error":
                    raise RuntimeError("The page answered with an error.")
                if line.startswith("data: [") and first is None:
                    first = time.monotonic() - began
                text = json.loads(line[6:])[0] if line.startswith("data: [") else text
    if first is None:
        raise RuntimeError("The page answered with nothing.")
    return first, time.monotonic() - began, text


@cache
def tokenizer() -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(APP.parent / "default_model")


def resident(process: int) -> float:
    """GB of the process, 0 where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmRSS")), 0.0)


def rows(report: dict) -> list[list[str]]:
    """Rows for the documents."""
    found = ["visitors, tokens/s, first text s, 95 %, longest, replies, lost".split(", ")]
    for count, c in report["crowds"].items():
        waits = [c["first_text_s"], c["first_text_s_95"], c["first_text_s_most"]]
        row = [str(count), f"{c['tokens_per_s']:.0f}", *(f"{wait:.2f}" for wait in waits)]
        found.append([*row, str(c["replies"]), str(c["lost"])])
    page = f"page after {report['page_s']:.1f} s, ready {report['ready_s']:.1f} s"
    return [*found, [page, "", "", "", "", "", f"{report['memory_gb']:.2f} GB"]]


def table(report: dict) -> str:
    return aligned(rows(report))


if __name__ == "__main__":
    main()
