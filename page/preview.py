"""What other sites show of a link to this page: a title, a sentence, a picture.

Gradio's page has its own words in the head, before all that an application may add, and sites take the first they find.
"""

import re
from html import escape
from pathlib import Path

from starlette.datastructures import URL, Headers
from starlette.responses import FileResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PICTURE = Path(__file__).parent / "static" / "preview.png"
TITLE = "Persona bot"
WORDS = "Describe somebody in a few sentences, then chat with them. Small, open, and on your own machine."
_GRADIOS = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*?>')


def tags(page: str) -> bytes:
    """The head's tags; `page` is the address that the visitor asked for, since pictures need a whole one."""
    picture = page.split("?")[0].rstrip("/") + "/preview.png"
    named = {"title": TITLE, "description": WORDS, "image": picture}
    facts = {"og:type": "website", "og:url": page, "twitter:card": "summary_large_image"}
    facts |= {f"og:{name}": value for name, value in named.items()}
    facts |= {f"twitter:{name}": value for name, value in named.items()}
    facts |= {"description": WORDS}
    lines = (
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}" content="{escape(value)}">'
        for name, value in facts.items()
    )
    return "".join(lines).encode()


class Preview:
    """ASGI middleware: the page's head gets our tags in place of Gradio's."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or inner not in ("", "/"):
            return await self.app(scope, receive, send)
        start: Message = {}
        body = b""

        async def send_with_tags(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            if message["type"] != "http.response.body":
                return await send(message)
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            headers = dict(start["headers"])
            if headers.get(b"content-type", b"").startswith(b"text/html"):
                body = _GRADIOS.sub(b"", body)
                body = body.replace(b"<head>", b"<head>" + tags(str(address(scope))), 1)
                headers[b"content-length"] = str(len(body)).encode()
            await send({**start, "headers": list(headers.items())})
            await send({**message, "body": body})

        await self.app(scope, receive, send_with_tags)


def address(scope: Scope) -> URL:
    """The visitor's own address of the page, behind a proxy too."""
    headers, url = Headers(scope=scope), URL(scope=scope)
    scheme = headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
    host = headers.get("x-forwarded-host", url.netloc).split(",")[0].strip()
    return url.replace(scheme=scheme if scheme in ("http", "https") else url.scheme, netloc=host)


route = Route("/preview.png", lambda request: FileResponse(PICTURE))
