"""What of a stream of texts is shown: without the model's thoughts, half characters, and white space that may be the last.

The work for a piece does not grow with the text before it.
"""

from persona_bot.text import settled
from persona_bot.thoughts import CHANNEL, HALVES, LONGEST_HALF, TAG, TAGS


class VisibleText:
    """Takes a text in chunks of any size and gives the pieces that can be shown."""

    def __init__(self, inside: bool = False) -> None:
        """`inside`: the text is expected to begin within a thought, whose end alone is marked."""
        self.thought = False  # whether any thought came
        self.inside = inside  # a thought
        self.began_inside = False  # a thought ended that had no beginning
        self._guessed: list[str] | None = [] if inside else None  # shown if no thought ends
        self._half = ""  # the first half of a character, or of a tag
        self._held: list[str] = []  # white space that is shown once something follows
        self._begun = False

    def add(self, chunk: str) -> str:
        """What is new to show."""
        text, self._half = cut_half(self._half + chunk)
        return self._settle(self._without_thoughts(text))

    def guessed(self) -> list[str]:
        """What was held back because the text was expected to begin within a thought, at its end, which was no thought's."""
        texts, self._guessed = self._guessed or [], None
        self.inside = self.inside and not texts
        return [piece for text in texts if (piece := self._settle(text))]

    def end(self) -> str:
        """What was held back, at the end of the text: the beginning of a tag."""
        half, self._half = self._half.encode("utf-16", "ignore").decode("utf-16"), ""
        return "".join([*self._held, half]) if half and not self.inside else ""

    def _settle(self, text: str) -> str:
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

    def _without_thoughts(self, text: str) -> str:
        shown, start = [], 0
        for tag in TAG.finditer(text):
            opens, unmatched = tag[0].lower() in TAGS, not self.inside or self._guessed is not None
            if not self.inside:
                shown.append(text[start : tag.start()])
            if unmatched and not opens and not tag[0].lower().startswith(CHANNEL):
                self.began_inside = True
            self.inside, self._guessed = opens, None
            self.thought, start = True, tag.end()
        if not self.inside:
            shown.append(text[start:])
        elif self._guessed is not None:
            self._guessed.append(text)
        return "".join(shown)


def cut_half(text: str) -> tuple[str, str]:
    """(the text, what at its end may be half a character or half a tag)."""
    for start in range(max(0, len(text) - LONGEST_HALF), len(text)):
        if text[start:].lower() in HALVES:
            return text[:start], text[start:]
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""
