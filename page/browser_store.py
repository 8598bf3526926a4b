"""What the visitor's browser keeps of a conversation, as JSON, and how it is read again.

    {"persona_bot": 1, "id": "4f0c..", "persona": {"name": "Willow", "face": "🌱", "sentences": ["i am willow."]}, "own": false, "by_hand": [],
     "exchanges": [{"message": "hi", "replies": ["hello!", "hey."], "shown": 1}]}

An exchange names its `persona` only where it is not the conversation's, and who said its message (`by`) where that was a
second persona. What comes back is a stranger's input: it passes the
same rules as what is typed into the page, and its size is bounded before it is parsed.
"""

import json
import re
from typing import Any, NamedTuple, TypeGuard, TypeVar

from page.conversation import MAX_EXCHANGES, MAX_REPLIES, Conversation, Exchange, new_id
from page.typed import BY_HAND, NAMELESS
from persona_bot.errors import UserError
from persona_bot.persona import (
    MAX_FACE_CHARS,
    MAX_NAME_CHARS,
    MAX_SENTENCES,
    MAX_TEXT_CHARS,
    Persona,
    check_message,
    face_of,
    parse_persona,
    persona_file,
)

VERSION = 1
MAX_KEPT = 20  # chats in a browser, and personas
MAX_DRAFT_CHARS = 10_000
MAX_JSON_CHARS = 800_000
KEPT_BYTES = 700_000  # of a chat; a request may have a million, and quotes are escaped in it
MAX_REPLY_CHARS = 4_000  # the longest reply that a model may write has fewer
BROKEN = "That is no conversation of this page, or it is damaged; nothing was changed."


def chat_to_json(chat: Conversation) -> str:
    """The conversation as the browser keeps it; `own`: somebody wrote its persona; `by_hand`: what they chose of its name and face."""
    exchanges = [_exchange(exchange, chat) for exchange in chat.exchanges]
    record = {
        "persona_bot": VERSION,
        "id": chat.id,
        "persona": persona_to_dict(chat.persona),
        "own": chat.own,
        "by_hand": sorted(chat.by_hand),
        "exchanges": exchanges,
    }
    text = json.dumps(record, ensure_ascii=False)
    if len(text.encode()) > KEPT_BYTES:  # alternatives go first, then the oldest exchanges
        for exchange in exchanges:
            exchange.update(replies=exchange["replies"][exchange["shown"] :][:1], shown=0)
        sizes = [len(json.dumps(exchange, ensure_ascii=False).encode()) for exchange in exchanges]
        while sum(sizes) > KEPT_BYTES:
            del exchanges[0], sizes[0]
        text = json.dumps(record, ensure_ascii=False)
    return text


Otherwise = TypeVar("Otherwise", str, None)


class Kept(NamedTuple):
    """What a browser brings when it opens the page."""

    chat: Conversation | None  # the one that was going on
    text: str | None  # of the persona's text box, perhaps over a limit
    draft: str  # in the message box
    settings: dict[str, Any]  # by name, not checked yet
    problem: str  # a sentence about what could not be used
    link: str | None = None  # what the address holds behind #chat= (share.py)


def kept_from_json(text: object) -> Kept:
    """Whatever of it can be used: `{"chat": "..", "text": "..", "draft": "..", "settings": {..}}`, all of them optional."""
    try:
        record = _object(parse_json(text or "{}"))
    except UserError as error:
        return Kept(None, None, "", {}, str(error))
    chat, problem = None, ""
    if record.get("chat"):
        try:
            chat = chat_from_json(record["chat"])
        except UserError as error:
            problem = f"The chat that this browser kept cannot be used: {error}"
    settings = record.get("settings")
    return Kept(
        chat,
        _text_or(record.get("text"), MAX_TEXT_CHARS, None),
        _text_or(record.get("draft"), MAX_DRAFT_CHARS, ""),
        settings if isinstance(settings, dict) else {},
        problem,
        _text_or(record.get("link"), MAX_JSON_CHARS, None),
    )


def _text_or(value: object, longest: int, otherwise: Otherwise) -> str | Otherwise:
    try:
        return _text(value, longest)
    except UserError:
        return otherwise


def _exchange(exchange: Exchange, chat: Conversation) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "message": exchange.message,
        "replies": list(exchange.replies),
        "shown": exchange.shown,
    }
    if exchange.persona != chat.persona:
        fields["persona"] = persona_to_dict(exchange.persona)
    if exchange.by:
        fields["by"] = persona_to_dict(exchange.by)
    return fields


def persona_to_dict(persona: Persona) -> dict[str, Any]:
    return {
        "name": persona.name,
        "face": persona.face,
        "sentences": list(persona.sentences),
        "greeting": persona.greeting,
        "starters": list(persona.starters),
    }


def chat_from_json(text: object) -> Conversation:
    """The conversation that `chat_to_json` wrote; a last message without a reply becomes `unsent`.

    Raises UserError with one sentence for anything else.
    """
    record = _object(parse_json(text))
    if record.get("persona_bot") != VERSION:
        raise UserError(BROKEN)
    chat = Conversation(persona_from_dict(record.get("persona")))
    chat.own = record.get("own") is True
    chosen = _list(record.get("by_hand", []), len(BY_HAND))
    chat.by_hand = frozenset(part for part in BY_HAND if part in chosen)
    identity = record.get("id")
    chat.id = identity if _is_id(identity) else new_id()
    for entry in _list(record.get("exchanges"), MAX_EXCHANGES):
        chat.exchanges.append(_read_exchange(_object(entry), chat.persona))
    if chat.exchanges and not chat.exchanges[-1].replies:
        chat.unsent = chat.exchanges.pop().message
    if not all(exchange.replies for exchange in chat.exchanges):
        raise UserError(BROKEN)
    return chat


def _read_exchange(fields: dict[str, Any], persona: Persona) -> Exchange:
    replies = [_text(reply, MAX_REPLY_CHARS) for reply in _list(fields.get("replies"), MAX_REPLIES)]
    replies = [reply for reply in replies if reply.strip()]
    shown = fields.get("shown", 0)
    if not isinstance(shown, int) or not 0 <= shown < max(1, len(replies)):
        raise UserError(BROKEN)
    if "persona" in fields:
        persona = persona_from_dict(fields["persona"])
    by = persona_from_dict(fields["by"]) if "by" in fields else None
    return Exchange(check_message(fields.get("message")), persona, replies, shown, by=by)


def persona_from_dict(value: object) -> Persona:
    """A persona within the limits of one that is typed; raises UserError."""
    fields = _object(value)
    sentences = [_text(s, MAX_TEXT_CHARS) for s in _list(fields.get("sentences"), MAX_SENTENCES)]
    starters = [_text(s, MAX_TEXT_CHARS) for s in _list(fields.get("starters", []), MAX_SENTENCES)]
    named = Persona(
        _text(fields.get("name", ""), MAX_NAME_CHARS),
        tuple(sentences),
        face_of(_text(fields.get("face", ""), MAX_FACE_CHARS)),
        _text(fields.get("greeting", ""), MAX_TEXT_CHARS),
        tuple(starters),
    )
    head = named._replace(sentences=(), name="", face="")
    read = parse_persona(persona_file(head) + "\n" + "\n".join(sentences), named.name)
    return read._replace(name=read.name or NAMELESS.name, face=named.face)


def parse_json(text: object) -> object:
    """The JSON value in a text of bounded size; raises UserError for any other thing."""
    if not isinstance(text, str) or len(text) > MAX_JSON_CHARS:
        raise UserError(BROKEN)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(BROKEN) from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(BROKEN)
    return value


def _list(value: object, longest: int) -> list:
    if not isinstance(value, list) or len(value) > longest:
        raise UserError(BROKEN)
    return value


def _text(value: object, longest: int) -> str:
    """The text without half surrogate pairs, which could not be sent back to the browser."""
    if not isinstance(value, str) or len(value) > longest:
        raise UserError(BROKEN)
    return value.encode("utf-8", "replace").decode().replace("\0", "")


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value) is not None
