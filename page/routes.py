"""Which addresses of Gradio's are open: those that the page and programs use. Every other one does not exist for a visitor.

tests/page/test_middleware.py compares this with the installed Gradio, so that what a new one brings is closed until it is listed here.
"""

import re

from starlette.routing import compile_path

READ = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/preview.png",
    "/robots.txt",
    "/manifest.json",
    "/static/{path:path}",
    "/assets/{path:path}",
    "/gradio_api/theme.css",
    "/gradio_api/app_id",  # a page whose connection broke asks whether the server is the same
    "/gradio_api/info",
    "/gradio_api/openapi.json",
    "/gradio_api/startup-events",  # Gradio asks itself for it when it starts
    "/gradio_api/heartbeat/{session_hash}",
    "/gradio_api/queue/data",
    "/gradio_api/call/{api_name}/{event_id}",
    "/gradio_api/call/v2/{api_name}/{event_id}",
)
CALLS = (  # POST, with a JSON object as the body; page/calls.py looks at it first
    "/gradio_api/run/{api_name}",
    "/gradio_api/queue/join",
    "/gradio_api/call/{api_name}",
    "/gradio_api/call/v2/{api_name}",
    "/gradio_api/cancel",
    "/gradio_api/reset",
)
OPEN = {"GET": READ, "HEAD": ("/",), "POST": CALLS}


def _pattern(paths: tuple[str, ...]) -> re.Pattern[str]:
    # compile_path names each parameter as its route does; several in one pattern must not
    bare = (re.sub(r"\?P<\w+>", "", compile_path(path)[0].pattern) for path in paths)
    return re.compile("|".join(bare))


_PATTERNS = {method: _pattern(paths) for method, paths in OPEN.items()}


def is_open(method: str, path: str) -> bool:
    pattern = _PATTERNS.get(method)
    return pattern is not None and pattern.search(path) is not None
