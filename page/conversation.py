"""One visitor's conversation, owned by the server: who they talk to, what was said, and what is being said.

An exchange is the partner's message and the persona's reply to it. While a reply is being written its exchange is `pending`;
whoever writes it claims it first, so that a job that waited in the queue in vain finds nothing left to do.
"""

import threading
from dataclasses import dataclass, field

from persona_bot.errors import UserError
from persona_bot.persona import MAX_MESSAGE_CHARS, Persona, parse_persona

MAX_EXCHANGES = 200  # bounds a session's memory; a model forgets far earlier
NAMELESS = Persona("Your persona", (), "🎭")  # name and face of one that has none

_claiming = threading.Lock()  # one for all sessions: it is held for a few instructions only


@dataclass
class Exchange:
    """What the partner said, and what the persona of that moment answered."""

    message: str
    persona: Persona
    reply: str = ""


@dataclass
class Conversation:
    """Methods that a visitor can misuse raise UserError and change nothing."""

    persona: Persona
    exchanges: list[Exchange] = field(default_factory=list)
    pending: Exchange | None = None  # always the last of `exchanges`
    claimed: bool = False
    stop: threading.Event | None = None  # ends the reply that is being written
    editing: int | None = None  # the exchange that the next message replaces
    tokens_per_second: float | None = None  # of the last reply
    unsent: str = ""  # a message without an answer, on its way back into the message box
    before: tuple[Persona, list[Exchange]] | None = None  # what `fresh` put away
    # what comes back if the pending reply stays empty
    _replaced: list[Exchange] = field(default_factory=list)

    def ask(self, message: str) -> None:
        """Opens an exchange with this message, in place of the one being edited if there is one."""
        message = check_message(message)
        start = len(self.exchanges) if self.editing is None else self.editing
        self._open(message, start)

    def retry(self) -> None:
        """Asks for another reply to the last message."""
        if not self.exchanges:
            raise UserError("There is no reply to try again yet; write a message first.")
        self._open(self.exchanges[-1].message, len(self.exchanges) - 1)

    def _open(self, message: str, start: int) -> None:
        self._refuse_while_pending()
        if start >= MAX_EXCHANGES:
            raise UserError(f"This chat has {MAX_EXCHANGES} messages; start a new one.")
        self._replaced = self.exchanges[start:]
        self.pending = Exchange(message, self.persona)
        self.exchanges[start:] = [self.pending]
        self.claimed, self.editing, self.stop = False, None, threading.Event()

    def _refuse_while_pending(self) -> None:
        if self.pending:
            raise UserError("A reply is being written; wait for it or press Stop.")

    def claim(self) -> Exchange | None:
        """The pending exchange, to the first who asks; None to everyone else."""
        with _claiming:
            if self.pending is None or self.claimed:
                return None
            self.claimed = True
            return self.pending

    def finish(self, exchange: Exchange) -> None:
        """Closes the exchange; one without a reply is taken back, and what it replaced returns."""
        if exchange is not self.pending:  # a new chat was started meanwhile
            return
        self.pending = None
        if exchange.reply:
            return
        # a retry still shows its message
        if not (self._replaced and self._replaced[0].message == exchange.message):
            self.unsent = exchange.message
        self.exchanges[-1:] = self._replaced

    def halt(self) -> None:
        """Ends the reply that is being written, or takes back the message that still waits for its turn."""
        if self.stop:
            self.stop.set()
        waiting = self.claim()
        if waiting:
            self.finish(waiting)

    def undo(self) -> str:
        """Takes back the last exchange and returns its message; right after a fresh start, brings back what was before."""
        self._refuse_while_pending()
        self.editing = None
        if not self.exchanges and self.before:
            self.persona, self.exchanges = self.before
            self.before = None
            return ""
        if not self.exchanges:
            raise UserError("There is nothing to undo.")
        return self.exchanges.pop().message

    def edit(self, index: object) -> str:
        """Makes the next message replace the one at `index` and all that follows; returns its text."""
        if not isinstance(index, int) or not 0 <= index < len(self.exchanges):
            raise UserError("That message is no longer there; edit another one.")
        self._refuse_while_pending()
        self.editing = index
        return self.exchanges[index].message

    def fresh(self, persona: Persona | None = None) -> None:
        """Starts a new chat, with `persona` if given; one `undo` brings the old one back."""
        self.halt()
        if self.exchanges:
            self.before = (self.persona, self.exchanges)
        self.exchanges, self.pending, self.editing = [], None, None
        self.persona = persona or self.persona

    def rewrite(self, text: str, presets: dict[str, Persona]) -> None:
        """Reads the persona text box: counts from the next reply. Raises UserError naming a line over the limit."""
        self.persona = recognise(parse_persona(text), self.persona, presets)

    def turns(self) -> list[str]:
        """Alternating plain texts, the partner's first, up to the reply that is wanted next."""
        return [
            text
            for e in self.exchanges
            for text in ([e.message] if e is self.pending else [e.message, e.reply])
        ]


def check_message(message: object) -> str:
    """The message without outer white space and broken characters; raises UserError when it is empty or too long."""
    if not isinstance(message, str):
        raise UserError("A message must be text.")
    if len(message) > MAX_MESSAGE_CHARS:
        raise UserError(
            f"The message has {len(message):,} characters and at most {MAX_MESSAGE_CHARS:,} fit; shorten it."
        )
    if not message.strip():
        raise UserError("Write a message first.")
    # half a surrogate pair could not be sent back to the browser
    return message.strip().encode("utf-8", "replace").decode()


def recognise(persona: Persona, before: Persona, presets: dict[str, Persona]) -> Persona:
    """Name and face for sentences from the text box: a preset's, else those of the persona they were edited from."""
    for preset in presets.values():
        if preset.sentences == persona.sentences:
            return preset
    if persona.name:
        return persona
    known = before if set(before.sentences) & set(persona.sentences) else NAMELESS
    return persona._replace(name=known.name, face=known.face)
