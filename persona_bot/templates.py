"""A tokenizer's chat template, rendered around marks that stand for the texts; whatever it raises becomes one sentence.

A blank before a text belongs to its first word, as tokenizers have it: a prompt ends before the blank of its reply.
"""

import re
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from persona_bot.errors import UserError, reason
from persona_bot.thoughts import OPEN_THOUGHT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CURE = "use another model, or mend its chat_template.jinja"


class Place(NamedTuple):
    """Where a text stands."""

    number: int  # 0 the persona, odd the partner's turns, even the bot's
    blank: str  # what the template has before it


class Rendered(NamedTuple):
    """A template's output: literal strings before, between and behind the places of the texts."""

    literals: list[str]  # one more than places
    places: list[Place]

    def around(self, number: int) -> tuple[str, Place, str]:
        """(the literal before a text, its place, the literal behind it)."""
        k = [place.number for place in self.places].index(number)
        return self.literals[k], self.places[k], self.literals[k + 1]


class ChatTemplate:
    """The template, and how it takes texts: with or without a system turn, each a string or a list of parts."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        """Raises UserError where no way lets a short chat and a longer one be seen whole."""
        self.tokenizer = tokenizer
        self._opening = ""
        refusals = []
        for self._in_parts, self._system_turn in product((False, True), (True, False)):
            try:
                # Mistral's later ones drop the system turn of a chat that ends with a reply
                asked, longer, closed = (
                    self.render(count, asks) for count, asks in ((2, True), (6, True), (3, False))
                )
                # one that stands before the newest message moves: earlier replies would be learnt without it
                if not self._system_turn or longer.places[0].number == 0:
                    break
                refusals.append(UserError(f"This model's chat template moves a text; {CURE}."))
            except UserError as refusal:
                refusals.append(refusal)
        else:
            raise refusals[1]  # of the way that asks the least of a template
        before, place, _ = closed.around(2)
        self.reply_blank = place.blank
        # what stands before a reply, but not where one is asked for: a line, or GPT-OSS's channel
        if before.startswith(end := asked.literals[-1]):
            self._opening = before.removeprefix(end)

    def render(self, count: int, add_generation_prompt: bool) -> Rendered:
        """The template's output around so many texts; with `add_generation_prompt` it ends where a reply begins.

        Raises UserError where the template refuses them or leaves one out."""
        try:
            # a str, as it is not to tokenize
            text: Any = self.tokenizer.apply_chat_template(
                self._messages([f"\ue000{k}\ue001" for k in range(count)]),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=False,
            )
        except Exception as error:  # jinja2's, or whatever a template does to it
            raise UserError(
                f"This model's chat template cannot write a chat ({reason(error)}); {CURE}."
            ) from error
        # a template that opens a thought for the model (DeepSeek-R1's): here it answers at once
        if add_generation_prompt:
            text = OPEN_THOUGHT.sub("", text).rstrip(" ") + self._opening
        pieces = re.split("( *)\ue000(\\d+)\ue001", text)
        if set(pieces[2::3]) != set(map(str, range(count))):
            raise UserError(f"This model's chat template leaves out a part of the chat; {CURE}.")
        pairs = zip(pieces[2::3], pieces[1::3], strict=True)
        return Rendered(pieces[::3], [Place(int(number), blank) for number, blank in pairs])

    def _messages(self, marks: list[str]) -> list[dict[str, Any]]:
        """Some templates refuse or skip the system turn; the persona then opens the partner's first turn."""
        if not self._system_turn:
            marks = [f"{marks[0]}\n\n{marks[1]}", *marks[2:]]
        roles = ["system"] * self._system_turn + ["user", "assistant"] * len(marks)
        return [
            {"role": role, "content": [{"type": "text", "text": mark}] if self._in_parts else mark}
            for role, mark in zip(roles, marks, strict=False)
        ]
