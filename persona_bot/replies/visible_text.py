"""What of a stream of texts is shown: without the model's thoughts, half characters, and white space that may be the last.

The work for a piece does not grow with the text before it.
"""

import re

from persona_bot.text import settled

TAG = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)
LONGEST = len("</thinking>")


class VisibleText:
    """Takes a text in chunks of any size and gives the pieces that can be shown."""

    def __init__(self) -> None:
        self.thought = False  # whether any thought came
        self._inside = False  # a thought
        self._half = ""  # the first half of a character, or of a tag
        self._held: list[str] = []  # white space that is shown once something follows
        self._begun = False

    def add(self, chunk: str) -> str:
        """What is new to show."""
        text, self._half = cut_half(self._half + chunk)
        text = self._without_thoughts(text)
        # two halves may come in two chunks; what is left of one alone is none
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = text if self._begun else text.lstrip()
        body = settled(text)
        rest = text[len(body) :]
        if not body:
            self._held += [rest] if rest else []
            return ""
        piece = "".join([*self._held, body])
        self._held, self._begun = [rest] if rest else [], True
        return piece

    def end(self) -> str:
        """What was held back as a possible beginning of a tag, at the end of the text."""
        half, self._half = self._half.encode("utf-16", "ignore").decode("utf-16"), ""
        return "".join([*self._held, half]) if half and not self._inside else ""

    def _without_thoughts(self, text: str) -> str:
        shown, start = [], 0
        for tag in TAG.finditer(text):
            if not self._inside:
                shown.append(text[start : tag.start()])
            self._inside = not tag[0].startswith("</")
            self.thought, start = True, tag.end()
        if not self._inside:
            shown.append(text[start:])
        return "".join(shown)


def cut_half(text: str) -> tuple[str, str]:
    """(the text, what at its end may be half a character or half a tag)."""
    start = text.rfind("<", max(0, len(text) - LONGEST + 1))
    if start >= 0 and any(
        tag.startswith(text[start:].lower())
        for tag in ("<think>", "</think>", "<thinking>", "</thinking>")
    ):
        if not TAG.fullmatch(text[start:]):
            return text[:start], text[start:]
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""
