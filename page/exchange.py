"""An exchange: the partner's message and the persona's replies to it, of which one is shown and counts."""

from dataclasses import dataclass, field

from persona_bot.persona import Persona


@dataclass
class Exchange:
    """What the partner said, and what the persona of that moment answered."""

    message: str
    persona: Persona
    replies: list[str] = field(default_factory=list)
    shown: int = 0  # the reply that the conversation goes on from
    growing: str = ""  # the reply that is being written
    by: Persona | None = None  # who said the message, when that was no visitor but a second persona
    replaced: list["Exchange"] = field(default_factory=list)  # what this edited message superseded

    @property
    def reply(self) -> str:
        return self.replies[self.shown] if self.replies else ""
