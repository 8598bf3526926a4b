"""The endpoint for programs.

Run: `python -m pytest tests/page/test_api.py`
"""

import itertools

import pytest
from gradio_client.exceptions import AppError

from persona_bot.persona import Persona
from persona_bot.settings import Settings
from tests.page.visitor import chat


def test_the_endpoint_streams_the_growing_reply(client, model, monkeypatch):
    # a fast machine writes this reply within one frame
    monkeypatch.setattr("page.api.frame_seconds", lambda: 0.0)
    job = chat(client, "hi!", seed=3)
    states = list(job)
    assert states[0] == "" and len(states) >= 3
    assert all(b.startswith(a) for a, b in itertools.pairwise(states))
    assert job.result() == states[-1]
    settings = Settings(min_tokens=1, max_tokens=40, seed=3)
    assert states[-1] == "".join(
        model.reply(Persona("", ("i am a baker.", "i like bread.")), ["hi!"], settings)
    )


def test_the_endpoint_is_documented_and_the_only_one(client):
    endpoints = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/chat"]
    parameters = {
        p["parameter_name"]: p["python_type"]["type"] for p in endpoints["/chat"]["parameters"]
    }
    assert (
        parameters["persona"] == parameters["turns"] == "list[str]"
        and parameters["temperature"] == "float"
    )
    assert endpoints["/chat"]["returns"][0]["python_type"]["type"] == "str"


BAD_CALLS = [
    ({"persona": "i am a baker."}, "Send the persona as a list"),
    ({"persona": [1]}, "Send the persona as a list"),
    ({"persona": None}, "Send the persona as a list"),
    ({"persona": ["x" * 201]}, "Line 1 has a sentence of 201 characters"),
    ({"persona": ["a."] * 13}, "at most 12"),
    ({"turns": []}, "odd number"),
    ({"turns": ["hi", "hello"]}, "odd number"),
    ({"turns": {"hi": 1}}, "as a list of texts"),
    ({"turns": [{"role": "user", "content": "hi"}]}, "as a list of texts"),
    ({"turns": ["hi"] * 201}, "at most 199"),
    ({"turns": ["a" * 1001]}, "has 1,001 characters"),
    ({"turns": [""]}, "Write a message first"),
    ({"temperature": 1e308}, "temperature must be a number from"),
    ({"temperature": "hot"}, "temperature must be a number from"),
    ({"top_k": 1.5}, "top_k must be a whole number"),
    ({"max_tokens": True}, "max_tokens must be a whole number"),
    ({"seed": -1}, "seed must be a whole number"),
    ({"min_tokens": 50, "max_tokens": 40}, "must be below the longest"),
    ({"repetition_penalty": [1]}, "repetition_penalty must be a number"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD_CALLS)
def test_bad_payloads_get_a_sentence(client, wrong, message):
    call = {"persona": ["i am a baker."], "turns": ["hi"], **wrong}
    with pytest.raises(AppError, match=message) as caught:
        client.predict(**call, api_name="/chat")
    assert "Traceback" not in str(caught.value)


def test_after_bad_payloads_the_endpoint_still_answers(client, model):
    assert chat(client, "hi!", seed=3).result()
