"""A tokenizer's chat template, rendered around marks that stand for the texts; whatever it raises becomes one sentence."""

import re
from itertools import product
from typing import TYPE_CHECKING, Any

from persona_bot.errors import UserError, reason
from persona_bot.thoughts import OPEN_THOUGHT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CURE = "use another model, or mend its chat_template.jinja"


class ChatTemplate:
    """The template, and how it takes texts: with or without a system turn, each a string or a list of parts."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        """Raises UserError where no way lets a short chat and a longer one be seen whole."""
        self.tokenizer = tokenizer
        refusals = []
        for self._in_parts, self._system_turn in product((False, True), (True, False)):
            try:
                # Mistral's later ones drop the system turn of a chat that ends with a reply
                for count, asked in ((2, True), (6, True), (3, False)):
                    self.render(count, asked)
                return
            except UserError as refusal:
                refusals.append(refusal)
        raise refusals[1]  # of the way that asks the least of a template

    def render(self, count: int, add_generation_prompt: bool) -> list[str | int]:
        """The template's output around so many texts, 0 the persona: literal strings, and numbers that stand for the texts.

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
        text = OPEN_THOUGHT.sub("", text) if add_generation_prompt else text
        pieces = re.split("\ue000(\\d+)\ue001", text)
        if set(pieces[1::2]) != set(map(str, range(count))):
            raise UserError(f"This model's chat template leaves out a part of the chat; {CURE}.")
        return [int(p) if k % 2 else p for k, p in enumerate(pieces) if k % 2 or p]

    def _messages(self, marks: list[str]) -> list[dict[str, Any]]:
        """Some templates refuse or skip the system turn; the persona then opens the partner's first turn."""
        if not self._system_turn:
            marks = [f"{marks[0]}\n\n{marks[1]}", *marks[2:]]
        roles = ["system"] * self._system_turn + ["user", "assistant"] * len(marks)
        return [
            {"role": role, "content": [{"type": "text", "text": mark}] if self._in_parts else mark}
            for role, mark in zip(roles, marks, strict=False)
        ]
