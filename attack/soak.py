"""A long day in little: visitors who ask, stop and leave for so many minutes, and what that costs in memory, descriptors and threads.

Run: `make soak ARGS='--minutes 10'`. Everything stays on this machine.
"""

import argparse
import json
import random
import threading
import time

import httpx

from attack.__main__ import CALL, PERSONA, hostile, reply
from attack.target import Target, end_on_sigterm, opened

KINDS = ("replies", "replies", "left", "malformed", "looks")
WARM_UP, AFTER = 60.0, 45.0  # seconds; the page gives memory back every 20


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m attack.soak", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", help="folder or name; else the default model")
    parser.add_argument(
        "--minutes", type=float, default=10, help="at most 60 (default: %(default)s)"
    )
    parser.add_argument("--visitors", type=int, default=8, help="at once (default: %(default)s)")
    options = parser.parse_args()
    end_on_sigterm()
    print(
        json.dumps(
            soak(options.model, min(options.minutes, 60), min(options.visitors, 64)), indent=2
        )
    )


def soak(model: str | None, minutes: float, visitors: int) -> dict[str, object]:
    """What came of it; memory grows from the end of the first WARM_UP seconds under this load."""
    with opened(model, "--unlimited") as target:
        loaded = target.memory_mb()
        with target.client() as client:
            reply(client)  # the first one warms the model up
        memory = {"loaded": loaded, "start": target.memory_mb()}
        counts = dict.fromkeys(KINDS, 0) | {"failed": 0}
        resting, began = target.descriptors_and_threads(), time.monotonic()
        end = began + 60 * minutes
        crowd = [
            threading.Thread(target=visit, args=(target, seed, end, counts), daemon=True)
            for seed in range(visitors)
        ]
        for one in crowd:
            one.start()
        time.sleep(min(WARM_UP, 30 * minutes))
        memory["warm"] = target.memory_mb()
        while time.monotonic() < end:
            time.sleep(1)
            memory["load"] = target.memory_mb()
            memory["peak"] = max(memory["load"], memory.get("peak", 0.0))
        for one in crowd:
            one.join(120)
        time.sleep(AFTER)
        with (
            target.client() as client
        ):  # whoever takes one of the pool's threads ends those that were idle for 10 s
            client.get("/healthz").raise_for_status()
        time.sleep(1)
        memory["after"] = target.memory_mb()
        return {
            **counts, "visitors": sum(counts.values()), "minutes": minutes,
            "memory MB": {name: round(value) for name, value in memory.items()},
            "growth under load, %": round(100 * (memory["load"] / memory["warm"] - 1), 1),
            "growth after load, %": round(100 * (memory["after"] / memory["start"] - 1), 1),
            "descriptors and threads": [resting, target.descriptors_and_threads()],
            "tracebacks": target.log().count("Traceback"),
        }  # fmt: skip


def visit(target: Target, seed: int, end: float, counts: dict[str, int]) -> None:
    """One visitor after another: most hear a reply to its end, some leave in the middle, some only look, some send nonsense."""
    draw = random.Random(seed)
    while time.monotonic() < end:
        with target.client() as client:
            try:
                kind = draw.choice(KINDS)
                if kind == "replies":
                    reply(client, best_of=draw.choice([1, 1, 1, 3]), seed=draw.randrange(1_000))
                elif kind == "left":
                    named = {"persona": PERSONA, "turns": ["hi!"], "max_tokens": 100}
                    name = client.post("/gradio_api/call/v2/chat", json=named).json()["event_id"]
                    with client.stream("GET", f"/gradio_api/call/v2/chat/{name}"):
                        time.sleep(draw.uniform(0, 1))
                elif kind == "looks":
                    for path in ("/", "/config", "/gradio_api/info"):
                        client.get(path).raise_for_status()
                else:
                    path, body = hostile(draw, [(0, 1), (5, 3)])
                    client.post(path, content=body, headers=CALL)
                counts[kind] += 1
            except (httpx.HTTPError, KeyError):
                counts["failed"] += 1


if __name__ == "__main__":
    main()
