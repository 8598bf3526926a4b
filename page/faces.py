"""The pictures of faces: an emoji that `static/faces/` has is drawn from there, on machines without an emoji font too.

They are Twemoji's (static/faces/LICENSE.md), named by their code points. The page holds each once, as a symbol; a face refers to it.
"""

from html import escape
from pathlib import Path
from urllib.parse import quote

FOLDER = Path(__file__).parent / "static" / "faces"
_VARIATION = "\ufe0f"


def _emoji(name: str) -> str:
    """ "1f469-200d-1f680" -> `👩‍🚀`, without the mark that asks for a coloured picture."""
    return "".join(chr(int(code, 16)) for code in name.split("-"))


PICTURES = {_emoji(file.stem): file.stem for file in sorted(FOLDER.glob("*.svg"))}


def _symbol(name: str) -> str:
    svg = (FOLDER / f"{name}.svg").read_text(encoding="utf-8").strip()
    drawing = svg[svg.index(">") + 1 :].removesuffix("</svg>")
    return f'<symbol id="face-{name}" viewBox="0 0 36 36">{drawing}</symbol>'


# hidden by size, not by display: some browsers draw nothing from a symbol that is not displayed
SYMBOLS = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true">'
    f"{''.join(_symbol(name) for name in PICTURES.values())}</svg>"
)
ICON = "data:image/svg+xml," + quote((FOLDER / "1f3ad.svg").read_text(encoding="utf-8"))


def face(emoji: str) -> str:
    """The face as HTML; one without a picture is written as text."""
    name = PICTURES.get(emoji.replace(_VARIATION, ""))
    inner = f'<svg><use href="#face-{name}"></use></svg>' if name else escape(emoji)
    return f'<span class="face" aria-hidden="true">{inner}</span>'
