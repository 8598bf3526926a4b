"""Attacks the page and prints what came of it as a table: closed addresses, malformed calls, forged sessions, best-of and away.

Run: `make attack`, or `python -m attack --calls 300 --model FOLDER`; about two minutes. Everything stays on this machine.
"""

import argparse
import json
import random
import threading
import time
import uuid
from collections import Counter

import httpx

from attack.target import Target, end_on_sigterm, opened

CLOSED = [
    "deep_link?session_hash=x", "upload", "file=/etc/passwd", "proxy=http://127.0.0.1/", "runs",
    "component_server", "run-history/records", "vibe-code", "process_recording", "mcp",
    "stream/x/0/0/playlist.m3u8",
]  # fmt: skip
CALL = {"content-type": "application/json"}
ODD: list = [
    None, True, -1, 1e308, "", "\ud83d", "a" * 5_000, [], {}, [[]],
    {"path": "/etc/passwd"}, {"meta": {"_type": "gradio.FileData"}},
]  # fmt: skip
PERSONA = ["i am a baker."]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attack", description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or name; else the default model")
    parser.add_argument(
        "--calls", type=int, default=1_800, help="malformed ones (default: %(default)s)"
    )
    parser.add_argument(
        "--sessions", type=int, default=1_050, help="forged ones (default: %(default)s)"
    )
    parser.add_argument(
        "--visitors", type=int, default=16, help="who leave best-of-8 (default: %(default)s)"
    )
    options = parser.parse_args()
    end_on_sigterm()
    calls, sessions = min(options.calls, 10_000), min(options.sessions, 5_000)
    print(table(attack(options.model, calls, sessions, min(options.visitors, 64))))


def attack(model: str | None, calls: int, sessions: int, visitors: int) -> dict[str, object]:
    """What was tried -> what came of it."""
    with opened(model) as target:
        files = target.files()
        report: dict[str, object] = {
            "closed addresses": closed_addresses(target),
            f"{sessions:,} forged sessions": forged_sessions(target, sessions),
        }
        written, log = target.changed(files), target.log()
    # one client more than its share is refused before it is looked at: the rest is tried without shares
    with opened(model, "--unlimited") as target:
        files, memory = target.files(), target.memory_mb()
        report |= {
            f"{calls:,} malformed calls": malformed_calls(target, calls),
            f"{visitors} visitors leave best-of-8": leaving(target, visitors),
            "files written": written + target.changed(files),
            "tracebacks in the log": (log + target.log()).count("Traceback"),
            "lines in the log": len((log + target.log()).splitlines()),
            "memory before and after, MB": [round(memory), round(target.memory_mb())],
        }
    return report


def table(report: dict[str, object]) -> str:
    rows = [
        f"| {tried} | {json.dumps(result, ensure_ascii=False)} |"
        for tried, result in report.items()
    ]
    return "\n".join(["| tried | result |", "|---|---|", *rows])


def closed_addresses(target: Target) -> dict[str, int]:
    """How often each status came."""
    statuses: Counter[str] = Counter()
    with target.client("127.0.0.9") as client:
        for path in ["/monitoring", "/openapi.json", *(f"/gradio_api/{path}" for path in CLOSED)]:
            for method in ("GET", "POST"):
                statuses[str(client.request(method, path, json={}).status_code)] += 1
    return dict(statuses)


def malformed_calls(target: Target, count: int) -> dict[str, int]:
    """Statuses of calls that are wrong in every way, and how many connections broke."""
    draw, statuses = random.Random(0), Counter({"5xx": 0, "dropped": 0})
    functions = target.functions()
    with target.client() as client:
        for _ in range(count):
            path, body = hostile(draw, functions)
            try:
                status = client.post(path, content=body, headers=CALL).status_code
                statuses["5xx" if status >= 500 and status != 503 else str(status)] += 1
            except httpx.TransportError:
                statuses["dropped"] += 1
        assert client.get("/healthz").status_code == 200
    return dict(statuses)


def hostile(draw: random.Random, functions: list[tuple[int, int]]) -> tuple[str, bytes]:
    number, inputs = draw.choice(functions)
    path = draw.choice(["run/predict", "run/predict", "queue/join", "call/chat", "cancel", "reset"])
    session = draw.choice([f"s{draw.randrange(20)}", *ODD])
    fields = {
        "data": [draw.choice(ODD) for _ in range(draw.choice([inputs, inputs, 0, 99]))],
        "fn_index": draw.choice([number, number, number, -1, 10**9, *ODD])
        if path != "call/chat"
        else None,
        "session_hash": f"s{draw.randrange(20)}" if draw.random() < 0.7 else session,
        "event_data": draw.choice(ODD),
    }
    if draw.random() < 0.2:
        fields[draw.choice(list(fields))] = draw.choice(ODD)
    body = json.dumps(fields).encode()
    if draw.random() < 0.1:
        body = body[: draw.randrange(len(body))] + draw.choice([b"", b"\xff", b"[" * 2_000])
    return "/gradio_api/" + path, body


def forged_sessions(target: Target, count: int) -> dict[str, object]:
    """One client invents sessions; another's chat must outlive that."""
    refused = 0
    number, inputs = target.functions(unqueued=True)[0]
    with target.client("127.0.0.2") as greedy, target.client("127.0.0.3") as visitor:
        before = reply(visitor)
        for _ in range(count):
            fields = {"data": [None] * inputs, "fn_index": number, "session_hash": uuid.uuid4().hex}
            refused += greedy.post("/gradio_api/run/predict", json=fields).status_code == 429
        return {
            "refused": refused,
            "another client is answered": bool(before) and bool(reply(visitor)),
        }


def reply(client: httpx.Client, **values: object) -> str:
    """The whole reply to one message, through the endpoint for programs."""
    named = {"persona": PERSONA, "turns": ["hi!"], "max_tokens": 20, "min_tokens": 1, **values}
    joined = client.post("/gradio_api/call/v2/chat", json=named)
    joined.raise_for_status()
    return client.get(f"/gradio_api/call/v2/chat/{joined.json()['event_id']}").text


def leaving(target: Target, visitors: int) -> dict[str, float]:
    """All ask for the best of eight and drop the line at once; how long /healthz took at most, and the next reply."""

    def visit() -> None:
        with target.client() as client:
            named = {
                "persona": PERSONA,
                "turns": ["hi!"],
                "best_of": 8,
                "max_tokens": 100,
                "min_tokens": 15,
            }
            name = client.post("/gradio_api/call/v2/chat", json=named).json()["event_id"]
            with client.stream("GET", f"/gradio_api/call/v2/chat/{name}"):
                time.sleep(2)

    crowd = [threading.Thread(target=visit, daemon=True) for _ in range(visitors)]
    for one in crowd:
        one.start()
    slowest, end = 0.0, time.monotonic() + 8
    with target.client() as client:
        while time.monotonic() < end:
            began = time.monotonic()
            client.get("/healthz")
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.05)
        for one in crowd:
            one.join(30)
        began = time.monotonic()
        reply(client)
        return {"/healthz s": round(slowest, 2), "next reply s": round(time.monotonic() - began, 2)}


if __name__ == "__main__":
    main()
