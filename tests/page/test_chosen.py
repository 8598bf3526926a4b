"""The settings as the page's fields hold them.

Run: `python -m pytest tests/page/test_chosen.py`
"""

import pytest

from page.chosen import chosen_setting, chosen_settings
from page.names import SETTINGS
from persona_bot.errors import UserError
from persona_bot.settings import Settings


def test_whole_numbers_are_rounded_and_others_stay():
    values = {name: getattr(Settings(), name) for name in SETTINGS}
    chosen = chosen_settings({**values, "top_k": 3.7, "best_of": 2.0, "top_p": 0.55}.values())
    assert chosen == Settings(top_k=4, best_of=2, top_p=0.55)


@pytest.mark.parametrize("value", [-0.4, 1000.4, float("nan"), float("inf"), None, "3", True, [3]])
def test_a_value_that_fits_no_field_is_named_by_its_label(value):
    with pytest.raises(UserError, match="^The setting Top-k must be a whole number from 0 to 1000"):
        chosen_setting("top_k", value)
