"""Which conversations the server keeps when there are too many: those in use are the last to go.

A session in which nothing was said costs nothing to lose: the next call begins it anew. Whose conversation had to go is told
so by the middleware, and gets it back from the browser.
"""

from collections import OrderedDict
from typing import Any

from gradio.state_holder import SessionState, StateHolder

from page.conversation import Conversation

MAX_UNUSED = 100  # sessions in which nothing was said; each takes some 30 KB
MAX_LOST = 10_000  # names of sessions that had to go


class Sessions(StateHolder):
    """Gradio's, with another order of going; `capacity` bounds the sessions in use."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: OrderedDict[str, None] = OrderedDict()

    def update(self, session_id: str) -> None:
        with self.lock:
            if session_id in self.session_data:
                self.session_data.move_to_end(session_id)
            if len(self.session_data) > min(MAX_UNUSED, self.capacity):
                self._make_room(session_id)

    def _make_room(self, asking: str) -> None:
        used: list[str] = []
        unused: list[str] = []
        for name, state in self.session_data.items():
            if name != asking:
                (used if in_use(state) else unused).append(name)
        for name in unused[: max(0, len(unused) - MAX_UNUSED)]:
            self._drop(name)
        too_many = max(0, len(used) + 1 - self.capacity)
        # one that waits for its reply right now goes only where all do
        used.sort(key=lambda name: is_writing(self.session_data[name]))
        for name in used[:too_many]:
            self._drop(name)
            self.lost[name] = None
        while len(self.lost) > MAX_LOST:
            self.lost.popitem(last=False)

    def _drop(self, name: str) -> None:
        self.session_data.pop(name, None)
        self.time_last_used.pop(name, None)


def _chats(state: SessionState) -> list[Conversation]:
    return [value for value in list(state.state_data.values()) if isinstance(value, Conversation)]


def in_use(state: SessionState) -> bool:
    return any(chat.exchanges or chat.pending or chat.before for chat in _chats(state))


def is_writing(state: SessionState) -> bool:
    return any(chat.pending for chat in _chats(state))


def adopt(app: Any) -> Sessions:
    """The sessions of a Gradio app, which keeps them with us from the first request on."""
    if not isinstance(app.state_holder, Sessions):
        sessions = Sessions()
        sessions.session_data = app.state_holder.session_data
        sessions.time_last_used = app.state_holder.time_last_used
        sessions.set_blocks(app.get_blocks())
        app.state_holder = sessions
    return app.state_holder
