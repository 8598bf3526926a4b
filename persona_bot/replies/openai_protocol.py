"""What OpenAI-compatible servers understand: the conversation as messages, the settings as fields."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx

from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE, system_text
from persona_bot.persona import Persona
from persona_bot.settings import Settings
from persona_bot.text import tidy

# how chat templates begin their control tokens
CONTROL = re.compile(r"<(?=[|｜/a-zA-Z_])|\[(?=/?[A-Z_]{4,}\])")

AZURE = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
MAX_LIST = 4 << 20  # bytes of a list of models
# bytes of a whole answer: so many for each token that was asked for, and some for what stands around
PER_TOKEN, AROUND = 4 << 10, 256 << 10
# what a server that thinks before it answers may spend on that, in tokens
THOUGHT_TOKENS = 1024
PLAIN = {"Accept-Encoding": "identity"}  # a packed answer could unpack to any size


class Shape(NamedTuple):
    """How a request is written: servers know more or fewer fields, and some models have no system turn."""

    fields: str  # "full", "basic", or "new" (OpenAI's for models that think)
    system_turn: bool
    seed: bool = True  # Mistral's servers know none


# in the order in which they are tried on a server that has accepted none yet
SHAPES = [
    Shape("full", True),
    Shape("basic", True),
    Shape("new", True),
    Shape("basic", False),
    Shape("new", False),
]


def base_address(url: str) -> httpx.URL:
    """http://host:8000, with or without a slash or /v1 -> http://host:8000/v1; what stands before a whole route stays as it
    is, and so does a query; raises UserError."""
    try:
        address = httpx.URL(url.strip())
        if (
            address.scheme not in ("http", "https")
            or not address.host
            or address.fragment
            or (address.port or 1) > 65535
        ):
            raise ValueError("no address of a server")
    # the words stay out: an address may hold a password
    except (httpx.InvalidURL, ValueError) as error:
        raise UserError(
            "--endpoint (or MODEL_ENDPOINT) is no address of a server; write one like http://localhost:8000."
        ) from error
    path = address.path.rstrip("/")
    base = path.removesuffix("/chat/completions")
    is_base = base != path or re.search(r"/v\d[^/]*(/|$)", path)
    return address.copy_with(path=base if is_base else f"{path}/v1")


def credentials(address: httpx.URL, token: str) -> dict[str, str]:
    """The header that shows the server its token: Azure has one of its own for keys, and the common one for Entra's tokens."""
    if token and address.host.endswith(AZURE) and not token.startswith("eyJ"):
        return {"api-key": token}
    return {"Authorization": f"Bearer {token}"} if token else {}


def messages(persona: Persona, turns: Sequence[str], system_turn: bool = True) -> list[dict]:
    """The conversation as ChatLayout has it, the persona in the system turn, else at the head of the partner's first;
    what looks like a control token is broken up."""
    texts = [system_text(persona), *(tidy(turn) if turn != SILENCE else "" for turn in turns)]
    roles = ["system", *("assistant" if k % 2 else "user" for k in range(len(turns)))]
    if not system_turn:
        texts, roles = [f"{texts[0]}\n\n{texts[1]}", *texts[2:]], roles[1:]
    clean = [CONTROL.sub(r"\g<0> ", text).encode("utf-8", "replace").decode() for text in texts]
    return [{"role": role, "content": text} for role, text in zip(roles, clean, strict=True)]


def fields(settings: Settings, kind: str, max_tokens: int) -> dict[str, Any]:
    """The settings in OpenAI's names; "full" adds what vLLM, llama.cpp and others know, each by its own name, and only if
    it is on."""
    seed = {} if settings.seed is None else {"seed": settings.seed}
    if kind == "new":
        return {"max_completion_tokens": max_tokens, **seed}
    # TGI refuses a top_p of 1
    basic = {
        "temperature": settings.temperature,
        "top_p": min(settings.top_p, 0.999),
        "max_tokens": max_tokens,
        **seed,
    }
    if kind == "basic":
        return basic
    more: dict[str, Any] = {
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    if settings.top_k:
        more["top_k"] = settings.top_k
    if settings.min_tokens:
        more["min_tokens"] = settings.min_tokens
    if settings.repetition_penalty != 1:
        more |= {
            "repetition_penalty": settings.repetition_penalty,
            "repeat_penalty": settings.repetition_penalty,
        }
    return basic | more
