"""The settings as the page's fields hold them."""

from collections.abc import Iterable
from typing import Any

from page.names import SETTINGS
from persona_bot.settings import Settings, checked, number_type

FIELDS = Settings.__dataclass_fields__


def chosen_settings(values: Iterable[Any]) -> Settings:
    """From the values of all fields, in their order; raises UserError with one sentence."""
    named = zip(SETTINGS, values, strict=True)
    return Settings(**{name: chosen_setting(name, value) for name, value in named})


def chosen_setting(name: str, value: Any) -> Any:
    """The value of one field, rounded where it is to be whole; raises UserError that names it by its label."""
    field = FIELDS[name]
    facts = field.metadata
    if (
        number_type(field) is int
        and isinstance(value, float)
        and facts["low"] <= value <= facts["high"]
    ):
        value = round(value)
    return checked(field, value, facts["label"])
