"""Settings, each written once: default, range, step, unit, label and help stand beside the field.

Page sliders, the API's parameters, terminal flags, a server's request fields and training flags are made from them:

    dataclasses.fields(Settings)[0].metadata["help"]     low, high, step, unit, label, help, slider (its two ends, or None)
    add_flags(parser, Settings, names)                   one flag a setting, with its range and default in the help
    Settings(**given(options, Settings))                 what the command line gave; always by name, never by position
"""

import argparse
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from persona_bot.errors import UserError

# tokens before max_tokens from which on a reply ends with its sentence
FINISH_WITHIN = 16


def setting(
    default: float | None,
    low: float = 0,
    high: float = 1,
    *,
    label: str = "",
    help: str,
    step: float = 1,
    unit: str = "",
    slider: tuple[float, float] | bool = True,
) -> Any:
    """A field of a settings dataclass: a number from `low` to `high`, both allowed, or a bool where the default is one.
    (A type checker may see no Field: the name has the number's type, as with dataclasses.field.)

    `slider`: where the page's slider ends, if not at the range's own ends; False: the page has none.
    """
    ends = (low, high) if slider is True else slider or None
    facts = {"low": low, "high": high, "step": step, "unit": unit, "label": label, "help": help}
    return dataclasses.field(default=default, metadata={**facts, "slider": ends})


@dataclass(frozen=True)
class Settings:
    """How a reply is sampled. Raises UserError for a value out of range; whole numbers may come as floats."""

    temperature: float = setting(
        0.6,
        0,
        2,
        step=0.05,
        slider=(0, 1.3),  # beyond it lies word salad
        label="Temperature",
        help="Higher is more surprising; 0 always takes the likeliest word.",
    )
    top_p: float = setting(
        0.9,
        0.05,
        1,
        step=0.01,
        label="Top-p",
        help="Draw from the likeliest words that together have this share.",
    )
    top_k: int = setting(
        0, 0, 1000, unit="words", label="Top-k", help="Draw from so many words at most; 0 is off."
    )
    guidance_scale: float = setting(
        1.5,
        1,
        3,
        step=0.1,
        label="Guidance",
        help="Above 1 favours what the persona and the chat make likelier over what is said anyhow; 1 is off.",
    )
    min_tokens: int = setting(
        3,  # more makes short answers go on with anything
        0,
        60,
        unit="tokens",
        slider=(0, 15),  # who must say more repeats themselves
        label="Shortest reply",
        help="In tokens; a word has one or two.",
    )
    max_tokens: int = setting(
        60,
        4,
        200,
        unit="tokens",
        label="Longest reply",
        help="In tokens; it ends with a sentence if it can.",
    )
    repetition_penalty: float = setting(
        1.1,
        1,
        2,
        step=0.01,
        label="Repetition penalty",
        help="Above 1 avoids words that the reply has already.",
    )
    no_repeat_ngram: int = setting(
        3,
        0,
        10,
        unit="tokens",
        label="No run of words twice",
        help="Of so many tokens, in the whole chat; numbers, and what a question asks for, may come again; 0 is off.",
    )
    afterthought_penalty: float = setting(
        2,
        0,
        10,
        step=0.5,
        unit="nats",
        slider=(0, 4),
        label="Afterthought penalty",
        help="Above 0 a reply seldom adds one more sentence that begins as the persona's do; 0 is off.",
    )
    best_of: int = setting(
        1,
        1,
        8,
        unit="replies",
        label="Best of",
        help="Writes so many replies, shows the one that fits best, and keeps the others as "
        "alternatives; above 1 nothing streams.",
    )
    seed: int | None = setting(
        None,
        0,
        2**32 - 1,
        slider=False,
        label="Seed",
        help="A whole number makes the reply repeatable while nobody else is answered; empty is random.",
    )
    deadline: float = setting(
        60.0,
        0,
        600,
        unit="seconds",
        slider=False,
        label="Deadline",
        help="In seconds; then the reply ends with what it has.",
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))
        if self.min_tokens >= self.max_tokens:
            raise UserError(
                f"The shortest reply ({self.min_tokens} tokens) must be below the longest "
                f"({self.max_tokens}); change one."
            )


SLIDERS = [field.name for field in fields(Settings) if field.metadata["slider"]]
FLAGS = [field.name for field in fields(Settings) if field.name not in ("seed", "deadline")]
# what a program may choose, in the order in which the API has always had them
API_FIELDS = [
    "temperature",
    "top_p",
    "top_k",
    "min_tokens",
    "max_tokens",
    "repetition_penalty",
    "seed",
    "best_of",
]


def checked(field: dataclasses.Field, value: Any, called: str = "") -> int | float | None:
    """The value as the field's type; raises UserError where it is none, or out of the field's range.

    The sentence names the field as it is `called`, else by its name.
    """
    if value is None and field.default is None:
        return None
    low, high = field.metadata["low"], field.metadata["high"]
    whole = number_type(field) is int
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise UserError(
            f"The setting {called or field.name} must be {kind} from {low:g} to {high_text(high)}; "
            f"it is {str(value)[:40]!r}."
        )
    return int(value) if whole else float(value)


def number_type(field: dataclasses.Field) -> type:
    """int, float or bool: the field's annotation without its None."""
    for kind in (bool, int, float):
        if field.type in (kind, kind | None, kind.__name__, f"{kind.__name__} | None"):
            return kind
    raise TypeError(f"{field.name} is no number")


def add_flags(parser: argparse._ActionsContainer, kind: type, names: Iterable[str]) -> None:
    """One flag for each named field of a settings dataclass; what is not given is not in the result (see `given`)."""
    by_name = {field.name: field for field in fields(kind)}
    for field in (by_name[name] for name in names):
        facts, type_ = field.metadata, number_type(field)
        text = f"{facts['help']} "
        how: dict[str, Any]
        if type_ is bool:
            how = {"action": argparse.BooleanOptionalAction}
            text += f"(default: {field.default})"
        else:
            how = {"type": type_, "metavar": type_.__name__.upper()}
            default = "" if field.default is None else f"; default: {field.default:g}"
            text += f"({facts['low']:g} to {high_text(facts['high'])}{default})"
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
            **how,
        )


def given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The fields of a settings dataclass that the command line gave."""
    names = (field.name for field in fields(kind))
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def high_text(high: float) -> str:
    return f"{high:g}" if high < 10**6 else f"{high:,.0f}"
