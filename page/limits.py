"""How much of the page one client may take: calls a second, new sessions, replies that wait. A client is an address."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Iterable

MAX_CLIENTS = 10_000  # remembered; the one that was away longest is forgotten first


class Rate:
    """So many at once, and so many a second from then on, for each client (a token bucket)."""

    def __init__(self, at_once: float, per_second: float):
        self.at_once, self.per_second = at_once, per_second
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0 and one less for the client, or the seconds until there is one again."""
        now = time.monotonic()
        left, since = self._left.pop(client, (self.at_once, now))
        left = min(self.at_once, left + (now - since) * self.per_second)
        wait = 0.0 if left >= 1 else (1 - left) / self.per_second
        self._left[client] = (left if wait else left - 1, now)
        if len(self._left) > MAX_CLIENTS:
            self._left.popitem(last=False)
        return wait


def client_of(peer: str, forwarded: Iterable[str], hops: int) -> str:
    """Who asks: the peer itself, or with `hops` trusted proxies in front the address that the outermost of them saw.

    `forwarded` are the values of X-Forwarded-For; each proxy adds the address that it was asked from at the right.
    """
    addresses = [part.strip() for value in forwarded for part in value.split(",")]
    address = addresses[-hops] if 0 < hops <= len(addresses) else peer
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return peer
    if parsed.version == 6 and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    # one customer of a provider has this many addresses of the newer kind
    return (
        str(ipaddress.ip_network((parsed, 64), strict=False))
        if parsed.version == 6
        else str(parsed)
    )
