"""A browser's side of the page, for tests."""

import json
import uuid

import httpx
from gradio_client import Client

from page.blocks import demo
from page.events import Shown
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings

PERSONA = "i am a baker.\ni like bread."
VALUES = [0.7, 0.9, 0, 1.5, 1, 40, 1.1, 0, 2, 1, 7]  # the settings of the page, in its order


class Visitor:
    """A browser's side of the page: calls the functions behind the events, in one session."""

    def __init__(self, url: str):
        self.http = httpx.Client(base_url=url, timeout=60)
        self.session = uuid.uuid4().hex

    def call(self, event: str, *data, event_data=None) -> list:
        """What the event's last step gives its outputs; raises AssertionError with the server's message when it fails."""
        last = self.steps(event, *data, event_data=event_data)[-1]
        assert last["success"], last["output"]["error"]
        return last["output"]["data"]

    def steps(self, event: str, *data, event_data=None) -> list[dict]:
        """Every message of the server until the event is complete."""
        joined = self.join(event, *data, event_data=event_data)
        assert joined.status_code == 200, joined.text
        messages = []
        with self.http.stream(
            "GET", "/gradio_api/queue/data", params={"session_hash": self.session}
        ) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    # the end of an event that nobody read before
                    if message.get("event_id") != joined.json()["event_id"]:
                        continue
                    messages.append(message)
                    if messages[-1]["msg"] == "process_completed":
                        return messages
        raise AssertionError("the stream ended early")

    def join(self, event: str, *data, event_data=None) -> httpx.Response:
        body = {
            "data": list(data),
            "fn_index": function_number(event),
            "session_hash": self.session,
            "event_data": event_data,
            "trigger_id": None,
        }
        return self.http.post(
            "/gradio_api/queue/join",
            content=json.dumps(body),
            headers={"content-type": "application/json"},
        )

    def ask(self, message: str, persona: str = PERSONA, values: list = VALUES) -> str:
        """Sends a message as the page does and returns the transcript's HTML after the reply."""
        self.call("send", message, persona, None)
        self.call("reply", None, *values)
        return self.shown()

    def shown(self) -> str:
        return self.call("settle", "", None)[1 + Shown._fields.index("transcript")]


def expected(model: LocalModel, turns: list[str], seed: int = 7) -> str:
    persona = Persona("", tuple(PERSONA.splitlines()))
    settings = Settings(temperature=0.7, min_tokens=1, max_tokens=40, no_repeat_ngram=0, seed=seed)
    return "".join(model.reply(persona, turns, settings))


def function_number(name: str) -> int:
    return next(k for k, fn in demo.fns.items() if getattr(fn.fn, "__name__", "") == name)


def call(client: httpx.Client, session: str, name: str = "stop_editing") -> httpx.Response:
    """Calls a function of the page, through the queue or at once as the page does."""
    number = function_number(name)
    data = [None] * len(demo.fns[number].inputs)
    body = {"data": data, "fn_index": number, "session_hash": session}
    path = "queue/join" if demo.fns[number].queue else "run/predict"
    return client.post("gradio_api/" + path, json=body)


def chat(client: Client, *turns, persona=("i am a baker.", "i like bread."), **settings):
    return client.submit(
        list(persona), list(turns), min_tokens=1, max_tokens=40, api_name="/chat", **settings
    )
