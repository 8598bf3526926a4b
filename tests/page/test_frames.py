"""What a frame of a growing reply costs on the wire: as much in a chat of 200 messages as in one of one.

Run: `python -m pytest tests/page/test_frames.py -s` prints the figures.
"""

import json

from page import backend, events
from page.backend import Progress
from page.browser_store import chat_to_json
from page.conversation import MAX_EXCHANGES, Conversation, Exchange
from persona_bot.persona import Persona
from tests.page.visitor import PERSONA, VALUES, Visitor

MAJA = Persona("Maja, baker", tuple(PERSONA.splitlines()), "🍞", "bread?")
WORDS = "i get up at three and bake until the birds are awake. then i sleep.".split()


def test_bytes_of_a_frame_do_not_grow_with_the_chat(url, monkeypatch):
    monkeypatch.setattr(events, "frame_seconds", lambda: 0.0)
    monkeypatch.setattr(backend, "_write", word_by_word)
    largest = {}
    for count in (1, 50, MAX_EXCHANGES):
        sizes = frames(Visitor(url), count)
        assert len(sizes) >= len(WORDS)
        largest[count] = max(sizes)
        print(f"{count} messages: {len(sizes)} frames, {min(sizes)} to {max(sizes)} bytes")
    # but for the digits of the message's number and of the seconds that Gradio reports
    assert max(largest.values()) - min(largest.values()) < 40


def word_by_word(persona, turns, settings, stop):
    for count in range(1, len(WORDS) + 1):
        yield Progress(" ".join(WORDS[:count]), count, 1.0)


def frames(visitor: Visitor, count: int) -> list[int]:
    """The bytes of each message of the server while it writes the reply to the chat's `count`th message."""
    before = [Exchange(f"message {k}", MAJA, [" ".join(WORDS)]) for k in range(count - 1)]
    chat = chat_to_json(Conversation(MAJA, before, own=True))
    visitor.call("opened", json.dumps({"settings": {}, "chat": chat}), None)
    visitor.call("send", "and now?", PERSONA, None)
    joined = visitor.join("reply", None, *VALUES).json()["event_id"]
    sizes = []
    address, query = "/gradio_api/queue/data", {"session_hash": visitor.session}
    with visitor.http.stream("GET", address, params=query) as stream:
        for line in stream.iter_lines():
            message = json.loads(line[5:]) if line.startswith("data:") else {}
            if message.get("event_id") != joined:
                continue
            if message["msg"] == "process_completed":
                return sizes
            if message["msg"] == "process_generating":
                sizes.append(len(line.encode()))
    raise AssertionError("the stream ended early")
