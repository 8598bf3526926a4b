"""Settings are written once; sliders, flags and the API are made from them. Run: python -m pytest tests/persona_bot/test_settings.py"""

import argparse
import inspect
from dataclasses import dataclass, fields

import pytest

from persona_bot.errors import UserError
from persona_bot.settings import API_FIELDS, FLAGS, SLIDERS, Settings, add_flags, given, setting

NAMES = [field.name for field in fields(Settings)]


@pytest.mark.parametrize("field", fields(Settings), ids=NAMES)
def test_each_field_says_what_it_is_and_its_default_is_in_its_range(field):
    facts = field.metadata
    assert facts["help"].endswith(".") and facts["label"]
    if field.default is not None:
        assert facts["low"] <= field.default <= facts["high"]
    if facts["slider"]:
        low, high = facts["slider"]
        assert facts["low"] <= low <= field.default <= high <= facts["high"]
    for end in (facts["low"], facts["high"]):
        others = {"max_tokens": 200} if field.name == "min_tokens" else {"min_tokens": 0}
        if field.name == "min_tokens" or field.name not in others:
            Settings(**others | {field.name: end})


def test_sliders_end_where_replies_stay_sane():
    by_name = {field.name: field.metadata["slider"] for field in fields(Settings)}
    assert by_name["temperature"][1] == 1.3 and by_name["min_tokens"][1] == 15
    assert Settings().seed is None and "seed" not in SLIDERS


def test_every_list_of_names_is_of_fields():
    assert {*SLIDERS, *FLAGS, *API_FIELDS} <= set(NAMES)
    from page.api import answer

    parameters = inspect.signature(answer).parameters
    assert list(parameters)[2:] == API_FIELDS
    assert {name: parameters[name].default for name in API_FIELDS} == {
        name: getattr(Settings(), name) for name in API_FIELDS
    }


@dataclass(frozen=True)
class Training:
    rate: float = setting(0.5, 0, 1, label="Rate", help="In 100 % of cases.")
    steps: int = setting(3, 1, 10**9, label="Steps", help="So many.")
    fast: bool = setting(True, label="Fast", help="Whether it is.")


def test_flags_of_any_settings_class(capsys):
    parser = argparse.ArgumentParser()
    add_flags(parser, Training, [field.name for field in fields(Training)])
    assert given(parser.parse_args([]), Training) == {}
    options = parser.parse_args(["--rate", "0.25", "--no-fast", "--steps", "7"])
    assert Training(**given(options, Training)) == Training(0.25, 7, False)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "In 100 % of cases. (0 to 1; default: 0.5)" in shown
    assert "(1 to 1,000,000,000; default: 3)" in shown and "(default: True)" in shown


@pytest.mark.parametrize("value", [2.5, "7", True, -1, 2**32, float("nan")])
def test_a_seed_is_a_whole_number_or_none(value):
    with pytest.raises(UserError, match="The setting seed must be a whole number"):
        Settings(seed=value)
    assert Settings(seed=7.0).seed == 7
