"""Bodies of calls, fuzzed: each is handed on as plain JSON or refused with one sentence; nothing else comes out.

Run: `python -m pytest tests/page/test_calls.py`
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from page.blocks import demo
from page.calls import FILE_KEYS, KNOWN, Malformed, read_call
from page.routes import CALLS
from persona_bot.settings import API_FIELDS, Settings

TEXT = some.text(some.characters(), max_size=20)  # half surrogate pairs among them
LEAF = some.none() | some.booleans() | some.integers() | some.floats() | TEXT
ANY = some.recursive(
    LEAF,
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(TEXT | some.sampled_from(sorted(FILE_KEYS)), inner, max_size=3)
    ),
    max_leaves=12,
)
NUMBERS = some.sampled_from(sorted(demo.fns))
CALL = some.fixed_dictionaries(
    {"data": some.lists(ANY, max_size=4) | ANY},
    optional={
        "fn_index": NUMBERS | ANY,
        "session_hash": some.just("abc") | ANY,
        "event_data": ANY,
        "trigger_id": ANY,
        "event_id": ANY,
        "batched": ANY,
    },
)
PATHS = some.sampled_from(CALLS).map(
    lambda path: path.replace("{api_name}", "chat" if "call" in path else "predict")
)


@settings(max_examples=300, deadline=None)
@given(body=CALL | ANY, path=PATHS)
def test_a_call_is_handed_on_clean_or_refused_with_one_sentence(body, path):
    try:
        call = read_call(json.dumps(body).encode(), path, demo)
    except Malformed as refusal:
        assert 400 <= refusal.status < 500
        assert str(refusal).endswith(".") and "\n" not in str(refusal)
        return
    handed_on = json.loads(call.body.decode("utf-8"))
    assert isinstance(handed_on, dict)
    if "/v2/" not in path:
        assert set(handed_on) <= set(KNOWN)


@settings(max_examples=200, deadline=None)
@given(body=some.binary(max_size=60), path=PATHS)
def test_bytes_that_are_no_call_are_refused(body, path):
    try:
        read_call(body, path, demo)
    except Malformed as refusal:
        assert str(refusal).endswith(".")
    else:
        assert isinstance(json.loads(body), dict)


def test_settings_that_a_call_leaves_out_are_the_defaults():
    defaults = [getattr(Settings(), name) for name in API_FIELDS]
    for given_too in ([], [0.1], defaults):
        body = {"data": [["i bake."], ["hi"], *given_too]}
        call = read_call(json.dumps(body).encode(), "/gradio_api/call/chat", demo)
        assert json.loads(call.body)["data"] == [*body["data"], *defaults[len(given_too) :]]


@pytest.mark.parametrize("data", [[], [["i bake."]], [None] * 11])
def test_a_call_of_too_few_or_too_many_values_is_refused(data):
    with pytest.raises(Malformed, match=r"^This function takes (2 to )?10 values"):
        read_call(json.dumps({"data": data}).encode(), "/gradio_api/call/chat", demo)
