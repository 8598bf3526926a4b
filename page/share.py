"""A conversation in a link: packed into the fragment, which no browser sends and no log holds.

https://host/#chat=7VbBbtswDP0V..        the JSON of browser_store.py, deflated, in URL-safe base64
"""

import base64
import binascii
import json
import zlib

from page.browser_store import MAX_JSON_CHARS, chat_from_json, chat_to_json
from page.conversation import Conversation, new_id
from persona_bot.errors import UserError

MAX_LINK_CHARS = 8_000  # what mail programs, messengers and browsers all pass on
BROKEN = "This link holds no conversation, or it was cut off on its way; ask for it again."


def chat_to_link(chat: Conversation) -> str:
    """The fragment behind `#chat=`: the persona and the shown replies. Raises UserError where it gets too long."""
    if not any(exchange.reply for exchange in chat.exchanges):
        raise UserError("There is no conversation to share yet; write a message first.")
    record = json.loads(chat_to_json(chat))
    del record["id"]
    for exchange in record["exchanges"]:
        exchange.update(replies=exchange["replies"][exchange["shown"] :][:1], shown=0)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(json.dumps(record, ensure_ascii=False).encode()) + packer.flush()
    fragment = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    if len(fragment) > MAX_LINK_CHARS:
        raise UserError(
            f"This chat is too long for a link ({len(fragment):,} characters, at most "
            f"{MAX_LINK_CHARS:,} fit); download it as a file instead."
        )
    return fragment


def chat_from_link(fragment: object) -> Conversation:
    """The conversation in a fragment, under an id of its own; raises UserError with one sentence."""
    if not isinstance(fragment, str) or len(fragment) > MAX_LINK_CHARS:
        raise UserError(BROKEN)
    try:
        packed = base64.b64decode(fragment + "=" * (-len(fragment) % 4), "-_", validate=True)
        unpacker = zlib.decompressobj(-15)
        # eight thousand characters can unpack to megabytes
        text = unpacker.decompress(packed, MAX_JSON_CHARS).decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        raise UserError(BROKEN) from error
    if not unpacker.eof:
        raise UserError(BROKEN)
    chat = chat_from_json(text)
    chat.id, chat.unsent = new_id(), ""
    return chat
