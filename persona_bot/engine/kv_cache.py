"""What a CPU chat remembers of the tokens it has read: keys and values, a conversation's own or side by side with others'."""

import threading

import torch

GROWTH = 64  # positions by which the room for keys and values grows
# how many conversations lie side by side, and with how many positions at most
SEATS, SEAT = 32, 512


class KeysValues:
    """Keys and values of one conversation: `kept` (layers, 1, 2 * heads, room, head size), of which `length` positions count."""

    def __init__(self, kept: torch.Tensor, length: int = 0):
        self.kept, self.length = kept, length
        self.seat: int | None = None  # then `kept` is a part of Seats.kept

    def make_room(self, count: int) -> None:
        """Room for `count` more positions."""
        if self.length + count > self.kept.shape[3]:
            self.kept = self.copy(self.length, count + GROWTH).kept

    def copy(self, count: int, more: int = GROWTH) -> "KeysValues":
        """The first `count` positions, with room for some more."""
        new = KeysValues(
            self.kept.new_empty(*self.kept.shape[:3], count + more, self.kept.shape[4]), count
        )
        new.kept[:, :, :, :count] = self.kept[:, :, :, :count]
        return new


class Seats:
    """Room for the keys and values of conversations that are answered at the same time, side by side in one tensor.

    A reply takes a seat when it begins and leaves it at its end; one that finds none, or is too long, is computed alone.
    """

    def __init__(self, layers: int, heads: int, size: int, dtype: torch.dtype):
        # zeros, which what is not written yet is attended to with weight 0; the system gives memory
        # as it is written
        self.kept = torch.zeros(layers, SEATS, 2 * heads, SEAT, size, dtype=dtype)
        self._free = list(range(SEATS))
        self._lock = threading.Lock()

    def take(self, cache: KeysValues, positions: int) -> None:
        """Moves a conversation of up to so many positions to the first free seat, if there is one."""
        with self._lock:
            if positions > SEAT or not self._free:
                return
            cache.seat = min(self._free)
            self._free.remove(cache.seat)
        place = self.kept[:, cache.seat : cache.seat + 1]
        place[:, :, :, : cache.length] = cache.kept[:, :, :, : cache.length]
        cache.kept = place

    def leave(self, cache: KeysValues) -> None:
        """Moves it out again, into room of its own."""
        if cache.seat is not None:
            cache.kept, seat, cache.seat = cache.copy(cache.length, 0).kept, cache.seat, None
            with self._lock:
                self._free.append(seat)
