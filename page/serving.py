"""How the page opens: with its style, script, checks and health, whoever serves it.

`python app.py`, `gradio app.py`, `app.demo.launch()` and `gr.mount_gradio_app(app, demo, path="/chat")` all come by here.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import gradio as gr
import gradio.utils
from gradio.routes import App
from starlette.middleware import Middleware

from page import backend, faces, middleware, names, preview
from page.browser_store import MAX_JSON_CHARS, MAX_KEPT
from page.cards import MAX_CARD_CHARS, UNUSED
from page.passing_on import MAX_FILE_BYTES
from persona_bot.errors import UserError
from persona_bot.persona import MAX_MESSAGE_CHARS

STATIC = Path(__file__).parent / "static"
# of the fonts that Gradio brings, few hold the Latin letters in both weights; this one does
THEME = gr.themes.Base(
    font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
LAUNCH: dict[str, Any] = {
    "ssr_mode": False,
    "run_history": False,  # it would keep a second copy of every chat in the browser
    "footer_links": ["api"],  # hidden; our own button presses it
    "state_session_capacity": 1000,
}


def _texts(folder: str) -> str:
    files = sorted((STATIC / folder).iterdir())
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


NAMES = {"events": names.EVENTS, "settings": names.SETTINGS, "opened": middleware.OPENED}
LIMITS = {
    "messageChars": MAX_MESSAGE_CHARS,
    "fileBytes": MAX_FILE_BYTES,
    "cardChars": MAX_CARD_CHARS,
    "chatChars": MAX_JSON_CHARS,
    "kept": MAX_KEPT,
    "unusedOfCards": list(UNUSED),
}
# what the script has from here, so that each stands in one place
GIVEN = f"window.personaNames = {json.dumps(NAMES)}; window.personaLimits = {json.dumps(LIMITS)};"


class Page(gr.Blocks):
    """Blocks that bring along what Gradio 6 would take from `launch` only."""

    def launch(self, *args: Any, **options: Any) -> Any:
        """Like Gradio's; loads the default model when nothing else does."""
        return super().launch(*args, **{**LAUNCH, **options})

    def run_startup_events(self) -> None:
        backend.load_unless_promised()
        super().run_startup_events()

    def _set_html_css_theme_variables(self) -> None:  # Gradio calls it wherever it serves Blocks
        head = f"<script>{GIVEN}{_texts('js')}</script><link rel='icon' href=\"{faces.ICON}\">"
        self.theme, self.css, self.head = THEME, _texts("css"), head  # type: ignore[assignment]  # declared as None
        self.css_paths = []
        self.run_history, self.footer_links = False, LAUNCH["footer_links"]
        super()._set_html_css_theme_variables()


def _configure(self: App, blocks: gr.Blocks) -> None:
    """Gradio's, and for our page the security middleware and /healthz: the one step that launching and mounting share."""
    _gradios_configure(self, blocks)
    if isinstance(blocks, Page):
        self.user_middleware[:0] = [Middleware(preview.Preview), *middleware.middleware]
        self.router.routes[:0] = [preview.route, *middleware.routes]


_gradios_configure = App.configure_app
App.configure_app = _configure  # type: ignore[method-assign]  # no hook is offered
# Gradio's would import matplotlib at the first call, where it is installed, and that writes files; nothing here draws with it
gradio.utils.MatplotlibBackendMananger = contextlib.nullcontext  # type: ignore[misc, assignment]


def launch(
    demo: gr.Blocks,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    waiting: int = 128,
) -> list[str]:
    """Opens the page without blocking and returns its addresses, the public one last; `waiting` bounds the queue."""
    backend.promised.set()
    os.environ["GRADIO_DEBUG"] = "0"  # Gradio would not return, and the model never arrive
    demo.queue(max_size=waiting)
    try:
        _, local, public = demo.launch(
            server_name=host, server_port=port, share=share, quiet=True, prevent_thread_lock=True
        )
    except (OSError, OverflowError) as error:
        raise UserError(
            f"The page cannot listen at {host or 'this machine'}, port {port or 'any'}; try another --host or --port."
        ) from error
    return [local, public] if public else [local]
