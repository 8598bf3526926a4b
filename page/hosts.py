"""Under which names the page answers. A page of somebody else's whose name is made to point here (DNS rebinding), or who says
a false name, must not be given a page that believes in it: Gradio builds every address in it from the Host header.

Addresses (127.0.0.1, 192.168.1.5) and names that nobody can own in public (localhost, a bare `mybox`, mybox.local) are always
good. Other names are told: by `--public`, the Space, or the public link. Behind trusted proxies without `--public` the proxies
know the names.
"""

import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from persona_bot.errors import UserError

HOST = re.compile(r"([\w.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(:\d{1,5})?", re.ASCII)
FORWARDED = (b"forwarded", b"x-real-ip")  # and all that begin with x-forwarded-
NODE = b"x-gradio-server"  # of Gradio's own server in front, which this page has not; it names any address
# top-level domains of which no name can be bought (RFC 6761, 6762, 8375, ICANN's .internal; .lan by custom)
PRIVATE = (".localhost", ".local", ".lan", ".internal", ".home.arpa")


def is_a_host(headers: Headers) -> bool:
    """Whether every Host and X-Forwarded-Host could be a server's name or address, perhaps with a port."""
    hosts = headers.getlist("host")
    claimed = [
        host.strip() for value in headers.getlist("x-forwarded-host") for host in value.split(",")
    ]
    return len(hosts) < 2 and all(HOST.fullmatch(host) for host in hosts + claimed)


def only_from_trusted(
    headers: Iterable[tuple[bytes, bytes]], hops: int
) -> list[tuple[bytes, bytes]]:
    """Without what any but `hops` trusted proxies say of client, host and scheme: each adds its own at the right."""
    kept: list[tuple[bytes, bytes]] = []
    said: list[bytes] = []
    for name, value in headers:
        if name == b"x-forwarded-host":
            said += value.split(b",")
        elif name != NODE and (hops or not (name in FORWARDED or name.startswith(b"x-forwarded-"))):
            kept.append((name, value))
    if hops and said:
        kept.append((b"x-forwarded-host", said[-min(hops, len(said))].strip()))
    return kept


def asked_host(headers: Headers, hops: int) -> str:
    """What the visitor asked for, without the port; `headers` hold only what is believed."""
    host = hops and headers.get("x-forwarded-host") or headers.get("host", "")
    return bare(host)


def bare(host: str) -> str:
    return re.sub(r":\d*$", "", host).strip("[]").lower().rstrip(".")


def is_ours(host: str, names: Collection[str]) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(PRIVATE) or host in names
    return True


def names_of(public: Sequence[str] | None, hops: int) -> dict[str, str] | None:
    """Those of `--public`, of GRADIO_ROOT_PATH and of the Space, each with its scheme or ""; None, which is every name, where
    only a proxy can know them. Raises UserError."""
    root = os.environ.get("GRADIO_ROOT_PATH", "")
    known = dict(map(told, [*(public or ()), *([root] if "://" in root else [])]))
    if hops and not known:
        return None
    if space := os.environ.get("SPACE_HOST"):
        known[bare(space)] = "https"
    return known


def told(address: str) -> tuple[str, str]:
    """`named` of what somebody wrote; raises UserError where it is no address of a page."""
    with suppress(ValueError):
        parts = urlsplit(address if "://" in address else f"//{address}")
        if HOST.fullmatch(parts.netloc) and parts.scheme in ("", "http", "https"):
            return named(address)
    raise UserError(
        f"{address!r} is no address of a page; write one like https://chat.example.org in --public or GRADIO_ROOT_PATH."
    )


def named(address: str) -> tuple[str, str]:
    """(host, scheme or "") of `https://chat.example.org/` or of `chat.example.org`."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    return bare(parts.netloc), parts.scheme
