"""One visitor's conversation, owned by the server: who they talk to, what was said, and what is being said.

While a reply is being written its exchange is `pending`; whoever writes it claims it first, so that a job that waited in
the queue in vain finds nothing left to do.
"""

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from page.exchange import Exchange
from page.typed import chosen, recognise, renamed
from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE
from persona_bot.persona import Persona, check_message, parse_persona, persona_text
from persona_bot.settings import Settings

MAX_EXCHANGES = 200  # bounds a session's memory; a model forgets far earlier
MAX_REPLIES = 20  # alternatives of one exchange
MAX_LINES = 20  # that two personas say to each other before they stop
MAX_STEPS_BACK = 20  # fresh starts that can be undone

_claiming = threading.Lock()  # one for all sessions: it is held for a few instructions only


def new_id() -> str:
    return uuid.uuid4().hex


@dataclass
class Conversation:
    """Methods that a visitor can misuse raise UserError and change nothing."""

    persona: Persona
    exchanges: list[Exchange] = field(default_factory=list)
    id: str = field(default_factory=new_id)  # by which the browser keeps it
    own: bool = False  # somebody wrote this persona; it is no preset and was not drawn
    by_hand: frozenset[str] = frozenset()  # what of its name and its face somebody chose
    pending: Exchange | None = None  # always the last of `exchanges`
    claimed: bool = False
    stop: threading.Event | None = None  # ends the reply that is being written
    editing: int | None = None  # the exchange that the next message replaces
    tokens_per_second: float | None = None  # of the last reply
    settings: Settings | None = None  # of the last reply, for what it leaves to the prompt
    unsent: str = ""  # a message without an answer, on its way back into the message box
    returned: str = ""  # the message that `undo` gave back last
    before: list[tuple["Conversation", str]] = field(default_factory=list)  # with their text boxes
    partner: Persona | None = None  # a second persona that talks to the first
    lines_left: int = 0  # of both, until they stop by themselves
    line: str | None = None  # what the partner is saying
    used: tuple[str, tuple[str, ...]] | None = None  # a reply, and the sentences that it used
    _persona_before: Persona | None = None  # of the exchange that is tried again

    @property
    def writing(self) -> bool:
        """Whether somebody is writing: the persona, or a second one that talks to it."""
        return self.pending is not None or self.line is not None

    @property
    def greeting(self) -> str:
        """What the persona said before anybody else did."""
        return (self.exchanges[0].persona if self.exchanges else self.persona).greeting

    def ask(self, message: str) -> None:
        """Opens an exchange with this message, in place of the one being edited if there is one."""
        message = check_message(message)
        self._refuse_while_pending()
        start = len(self.exchanges) if self.editing is None else self.editing
        if start >= MAX_EXCHANGES:
            raise UserError(f"This chat has {MAX_EXCHANGES} messages; start a new one.")
        exchange = Exchange(message, self.persona, replaced=self.exchanges[start:])
        self.exchanges[start:] = [exchange]
        self._open(exchange)

    def retry(self) -> None:
        """Asks for one more reply to the last message."""
        self._refuse_while_pending()
        if not self.exchanges:
            raise UserError("There is no reply to try again yet; write a message first.")
        exchange = self.exchanges[-1]
        if len(exchange.replies) >= MAX_REPLIES:
            raise UserError(
                f"This message has {MAX_REPLIES} replies; choose one of them, or edit the message."
            )
        self._persona_before, exchange.persona = exchange.persona, self.persona
        self._open(exchange)

    def _open(self, exchange: Exchange) -> None:
        self.pending, exchange.growing = exchange, ""
        self.claimed, self.editing, self.stop = False, None, threading.Event()

    def begin_talk(self, partner: Persona) -> None:
        """A second persona takes the visitor's place."""
        self._refuse_while_pending()
        self.partner, self.lines_left, self.editing = partner, MAX_LINES, None

    def open_line(self) -> None:
        """The partner is about to speak, unless they were stopped or the chat is full."""
        if len(self.exchanges) >= MAX_EXCHANGES:
            self.lines_left = 0
        if self.lines_left and not self.writing:
            self.line, self.stop = "", threading.Event()
            self.lines_left -= 1

    def close_line(self) -> None:
        """What the partner said becomes a message, and the persona is asked."""
        said, self.line = self.line, None
        if said and self.partner:
            self.ask(said)
            self.exchanges[-1].by = self.partner
            self.lines_left = max(0, self.lines_left - 1)

    def end_talk(self) -> None:
        """Stops the two: the line that is being said is dropped, a reply counts as far as it came."""
        if self.partner and self.writing:
            if self.stop:
                self.stop.set()
            if self.pending:
                self.finish(self.pending)
        self.line, self.lines_left = None, 0

    def _refuse_while_pending(self) -> None:
        if self.writing:
            raise UserError("A reply is being written; wait for it or press Stop.")

    def claim(self) -> Exchange | None:
        """The pending exchange, to the first who asks; None to everyone else."""
        with _claiming:
            if self.pending is None or self.claimed:
                return None
            self.claimed = True
            return self.pending

    def finish(self, exchange: Exchange, drafts: Sequence[str] = ()) -> None:
        """Closes the exchange: what has grown becomes its shown reply, other `drafts` its alternatives.

        Without a reply the exchange is taken back, and what it replaced returns; one that was tried again stays as it was.
        """
        if exchange is not self.pending:  # a new chat was started meanwhile
            return
        self.pending = None
        others = [text for text in dict.fromkeys(drafts) if text and text != exchange.growing]
        if exchange.growing:
            exchange.shown = len(exchange.replies)
            exchange.replies = [*exchange.replies, exchange.growing, *others][:MAX_REPLIES]
        elif exchange.replies:
            exchange.persona = self._persona_before or exchange.persona
        else:
            self.unsent = "" if exchange.by else exchange.message
            self.exchanges[-1:] = exchange.replaced
        exchange.growing = ""

    def halt(self) -> None:
        """Ends the reply that is being written, or takes back the message that still waits for its turn."""
        if self.stop:
            self.stop.set()
        self.line, self.lines_left = None, 0
        waiting = self.claim()
        if waiting:
            self.finish(waiting)

    def undo(self) -> tuple[str, str | None]:
        """Takes back the last exchange, or the last fresh start.

        Returns the message that goes back into its box, and the persona's text when that changes.
        """
        self._refuse_while_pending()
        self.editing = None
        if self.exchanges:
            exchange = self.exchanges.pop()
            self.exchanges += exchange.replaced
            return "" if exchange.by else exchange.message, None
        if not self.before:
            raise UserError("There is nothing to undo.")
        former, text = self.before.pop()
        self.take(former)
        message, self.unsent = self.unsent, ""
        return message, text

    def edit(self, index: object) -> str:
        """Makes the next message replace the one at `index` and all that follows; returns its text."""
        self._refuse_while_pending()
        self.editing = self._checked(index)
        return self.exchanges[self.editing].message

    def show(self, index: object, step: object) -> None:
        """Moves to the next (1) or the former (-1) reply of the last exchange."""
        self._refuse_while_pending()
        if self._checked(index) != len(self.exchanges) - 1 or step not in (1, -1):
            raise UserError("Only the replies to the last message can be chosen from.")
        exchange = self.exchanges[-1]
        exchange.shown = (exchange.shown + step) % len(exchange.replies)

    def _checked(self, index: object) -> int:
        if not isinstance(index, int) or not 0 <= index < len(self.exchanges):
            raise UserError("That message is no longer there; choose another one.")
        return index

    def fresh(self, persona: Persona | None = None, text: str | None = None) -> None:
        """Starts a new chat, with `persona` if given; one `undo` brings the old one back, with the `text` of its text box."""
        self.put_away(text)
        if persona:
            self.persona, self.own, self.by_hand = persona, False, frozenset()
        self.exchanges, self.id = [], new_id()

    def open(self, other: "Conversation", text: str | None = None) -> None:
        """Goes on with another conversation; one `undo` brings the present one back."""
        self.put_away(text)
        self.take(other)

    def take(self, other: "Conversation") -> None:
        """Becomes what the other conversation is."""
        self.id, self.persona, self.exchanges = other.id, other.persona, other.exchanges
        self.own, self.by_hand, self.unsent = other.own, other.by_hand, other.unsent

    def put_away(self, text: str | None) -> None:
        """Ends what is being written and remembers all of it for `undo`."""
        self.end_talk()
        self.partner = None
        if self.stop:
            self.stop.set()
        if self.pending:
            self.finish(self.pending)
        text = persona_text(self.persona) if text is None else text
        self.before.append((replace(self, before=[]), text))
        del self.before[:-MAX_STEPS_BACK]
        self.editing, self.unsent, self.tokens_per_second = None, "", None

    def rewrite(self, text: str, presets: dict[str, Persona]) -> None:
        """Reads the persona text box: counts from the next reply. Raises UserError naming a line over the limit."""
        persona = recognise(parse_persona(text), self.persona, presets, self.by_hand)
        if persona != self.persona:
            self.persona, self.own = persona, persona not in presets.values()

    def rename(self, name: object = None, face: object = None) -> None:
        """Gives the persona another name or face."""
        before, self.persona = self.persona, renamed(self.persona, name, face)
        self.own = self.own or self.persona != before
        self.by_hand |= chosen(self.persona, before)

    def turns(self) -> list[str]:
        """Alternating plain texts, the partner's first, up to the reply that is wanted next."""
        opening = [SILENCE, self.greeting] if self.greeting else []
        return opening + [
            text
            for e in self.exchanges
            for text in ([e.message] if e is self.pending else [e.message, e.reply])
        ]
