"""What goes wrong in the running page: errors inside a reply, Stop, a full queue, visitors who leave.

Run: `python -m pytest tests/page/test_faults.py`
"""

import json
import re
import threading
import time

from page import backend, blocks, render
from tests.conftest import WAITING
from tests.page.visitor import PERSONA, VALUES, Visitor, chat, expected


def test_an_error_inside_a_reply_is_told_and_the_next_message_works(url, model, monkeypatch):
    visitor = Visitor(url)

    def fail(*args, **options):
        raise ValueError("inside the model: secret words")

    with monkeypatch.context() as patch:
        patch.setattr(model.backend.model, "forward", fail)
        visitor.call("send", "hi!", PERSONA, None)
        steps = visitor.steps("reply", None, *VALUES)
        values = visitor.call("settle", "typed meanwhile", None)
    told = [m["log"] for m in steps if m["msg"] == "log"]
    assert told == [
        "The model failed during the reply; send the message again."
    ] and "secret" not in json.dumps(steps)
    assert values[0] == "hi! typed meanwhile" and backend.running == set()
    assert render.escape(expected(model, ["hi!"])) in visitor.ask("hi!")


def test_stop_ends_the_reply_in_its_midst(url, model, slowed):
    visitor = Visitor(url)
    visitor.call("send", "hi!", PERSONA, None)
    done = threading.Thread(target=visitor.steps, args=("reply", None, *VALUES))
    done.start()
    wait_until(lambda: len(backend.running) == 1)
    time.sleep(0.2)  # some words
    visitor.http.post(
        "/gradio_api/run/predict", json=body_of("halt", visitor, "", None)
    ).raise_for_status()
    wait_until(lambda: backend.running == set())
    done.join(10)
    said = re.findall(r'class="them".*?<p[^>]*>(.*?)</p>', visitor.shown(), re.DOTALL)[-1]
    whole = expected(model, ["hi!"])
    assert said and len(said) < len(whole) and whole.startswith(said.strip())


def body_of(event: str, visitor: Visitor, *data) -> dict:
    number = next(k for k, fn in blocks.demo.fns.items() if getattr(fn.fn, "__name__", "") == event)
    return {"data": list(data), "fn_index": number, "session_hash": visitor.session}


def wait_until(true, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_the_queue_is_bounded_and_those_inside_finish(url, slowed):
    visitors = [Visitor(url) for _ in range(blocks.AT_ONCE + WAITING + 4)]
    for visitor in visitors:
        visitor.call("send", "hi!", PERSONA, None)
    answers = []
    for visitor in visitors:
        answers.append(visitor.join("reply", None, *VALUES).status_code)
        if len(answers) == blocks.AT_ONCE:
            wait_until(lambda: len(backend.running) == blocks.AT_ONCE)
    assert answers == [200] * (blocks.AT_ONCE + WAITING) + [503] * 4
    inside = visitors[: blocks.AT_ONCE + WAITING]
    wait_until(
        lambda: backend.running == set() and all(v.http.get("/healthz").is_success for v in inside),
        60,
    )
    wait_until(
        lambda: all(
            'class="them"' in v.shown() and "data-writing" not in v.shown() for v in inside
        ),
        60,
    )


def test_leaving_frees_the_slot(url, slowed, client):
    job = chat(client, "hi!", seed=3)
    wait_until(lambda: len(backend.running) == 1)
    job.cancel()
    wait_until(lambda: backend.running == set(), 2)
