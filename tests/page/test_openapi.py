"""The endpoint for programs, called with what its OpenAPI document promises and with anything else.

What schemathesis would do, without its six packages and its Python 3.11: the document has one call that is open.

Run: `python -m pytest tests/page/test_openapi.py`
"""

import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.page.test_calls import ANY

CALL = "/gradio_api/call/v2/chat"


def values(schema: dict) -> some.SearchStrategy:
    """What a schema allows; a kind that is new to the document is a KeyError here."""
    if "oneOf" in schema:
        return some.one_of(map(values, schema["oneOf"]))
    if schema["type"] == "array":
        return some.lists(values(schema["items"]), max_size=4)
    return {
        "string": some.text(max_size=20),
        "number": some.floats(allow_nan=False, allow_infinity=False),
        "integer": some.integers(),
        "null": some.none(),
    }[schema["type"]]


@pytest.fixture(scope="module")
def document(url) -> dict:
    return httpx.get(url + "gradio_api/openapi.json").raise_for_status().json()


def test_its_calls_are_those_that_are_tried_here(document):
    assert set(document["paths"]) == {
        CALL,
        "/gradio_api/call/chat/{event_id}",
        "/gradio_api/upload",  # Gradio names it in every document; it is closed
    }


@settings(max_examples=40, deadline=None)
@given(data=some.data())
def test_every_call_is_answered_or_refused_with_one_sentence(url, document, data):
    body = document["paths"][CALL]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = {
        name: data.draw(values(schema) | ANY, label=name)
        for name, schema in body["properties"].items()
        if data.draw(some.booleans(), label=f"with {name}")
    }
    with httpx.Client(base_url=url, timeout=60) as client:
        sent = client.post(
            CALL, content=json.dumps(fields), headers={"content-type": "application/json"}
        )
        assert sent.status_code == 200 or 400 <= sent.status_code < 500
        if sent.status_code == 200:
            told = client.get(f"{CALL}/{sent.json()['event_id']}").raise_for_status().text
            *_, last = [line for line in told.splitlines() if line.startswith("event: ")]
            assert last in ("event: complete", "event: error")
        assert client.get("/healthz").json() == {"status": "ready"}
