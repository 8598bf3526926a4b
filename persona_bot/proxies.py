"""Proxies and certificates of the environment: made such that every HTTP client can be made, or told by their variable's name.

Proxies stand between this program and the world, never between it and itself.
"""

import os
import ssl
from ipaddress import ip_address

import httpx

from persona_bot.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def spare_loopback() -> None:
    """`mend`; before a client is made, and before Gradio is imported. Raises UserError for a variable with which none can be
    made."""
    mend()
    if told := unusable():
        raise UserError(told)


def mend() -> None:
    """Adds this machine to NO_PROXY where a proxy is set, and puts right what desktops write and no client reads."""
    proxies = _set_proxies()
    for name, value in proxies.items():
        if value.lower().startswith("socks://"):
            os.environ[name] = f"socks5{value[5:]}"
    if proxies:
        for name in ("NO_PROXY", "no_proxy"):  # where the second is there, clients read it alone
            value = os.environ.get(name) or os.environ.get("NO_PROXY", "")
            spared = [host for entry in value.split(",") if (host := _readable(entry))]
            missing = [host for host in LOOPBACK if host not in spared]
            os.environ[name] = ",".join([*spared, *missing])


def unusable() -> str | None:
    """One sentence with cause and cure for a variable with which no client can be made; it may hold a password, and is
    not repeated."""
    for name, value in _set_proxies().items():
        try:
            if not httpx.Proxy(value if "://" in value else f"http://{value}").url.host:
                raise ValueError("no host")
        except (ValueError, httpx.InvalidURL):
            return f"{name} is no proxy that can be used; write one like http://HOST:3128 or socks5://HOST:1080, or unset it."
    if certificates := os.environ.get("SSL_CERT_FILE"):
        try:
            ssl.create_default_context(cafile=certificates)
        except OSError:  # ssl.SSLError, too
            return "SSL_CERT_FILE names no file of certificates; correct it, or unset it."
    return None


def _set_proxies() -> dict[str, str]:
    names = [n for name in PROXIES for n in (name, name.upper())]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _readable(entry: str) -> str:
    """A host of NO_PROXY as clients read it; "" for what none can read, like a range of IPv6, which would end them all."""
    host = entry.strip()
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        httpx.URL(host if "://" in host else f"all://*{host}")
    except httpx.InvalidURL:
        return ""
    return host
