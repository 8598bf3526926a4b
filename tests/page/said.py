"""Conversations in which something was said, for tests."""

from page.conversation import Conversation
from persona_bot.persona import Persona, load_presets

# a greeting is told apart (test_a_greeting_opens_the_chat)
PRESETS = {slug: persona._replace(greeting="") for slug, persona in load_presets().items()}
GREEN, SOLDIER = PRESETS["environmentalist"], PRESETS["soldier"]


def said(*pairs: tuple[str, str], persona: Persona = GREEN) -> Conversation:
    """A conversation in which these messages were answered with these replies."""
    chat = Conversation(persona)
    for message, reply in pairs:
        chat.ask(message)
        answer(chat, reply)
    return chat


def answer(chat: Conversation, reply: str) -> None:
    exchange = chat.claim()
    exchange.growing = reply
    chat.finish(exchange)


def texts(chat: Conversation) -> list[tuple[str, str]]:
    return [(exchange.message, exchange.reply) for exchange in chat.exchanges]
