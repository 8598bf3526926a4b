"""Proxies of the environment stand between this program and the world, never between it and itself."""

import os

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def spare_loopback() -> None:
    """Adds this machine to NO_PROXY where a proxy is set; before a client is made, and before Gradio is imported."""
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    for variable in ("no_proxy", "NO_PROXY"):
        spared = [host for host in os.environ.get(variable, "").split(",") if host.strip()]
        missing = [host for host in LOOPBACK if host not in spared]
        os.environ[variable] = ",".join([*spared, *missing])
