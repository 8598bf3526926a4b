"""A reply in the making, as the engine sees it: ids that are read, ids that come next, and the tokens drawn so far."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from persona_bot.engine.kv_cache import KVCache
from persona_bot.engine.passes import Part

if TYPE_CHECKING:
    from persona_bot.engine.backend import Reader
    from persona_bot.engine.sampler import Sampler


class Request:
    """A reply in the making: what its cache holds, what comes next, and the tokens drawn so far."""

    def __init__(
        self,
        prompt: Sequence[int],
        num_cached: int,
        cache: KVCache,
        sampler: "Sampler | Reader",
        give_back: Callable | None = None,
        token_types: Sequence[int] | None = None,
        guide: "Request | None" = None,
    ):
        """`cache` holds the first `num_cached` ids of the prompt; `give_back(ids, cache)` gets it after the reply, with all its ids.

        `token_types` are the prompt's, where the layout has them; what is written has the last of them.
        `guide`: the same reply behind nothing, which guidance holds against it; it is in no queue."""
        self.cached, self.new = list(prompt[:num_cached]), list(prompt[num_cached:])
        self.new_types = list(token_types[num_cached:]) if token_types else None
        self.cache, self.sampler, self.give_back, self.guide = cache, sampler, give_back, guide
        self.reply: list[int] = []
        self.num_fetched = 0  # how many of them the visitor has
        self.error: Exception | None = None
        self.left = False  # the visitor has

    @property
    def goes_on(self) -> bool:
        return self.error is None and not self.left and not self.sampler.is_last(self.reply)

    @property
    def has_news(self) -> bool:
        return self.num_fetched < len(self.reply) or self.error is not None

    def part(self, count: int) -> Part:
        """The first `count` new ids, for a pass."""
        return Part(self.new[:count], self.cache, self.new_types and self.new_types[:count])

    def draws(self, count: int) -> bool:
        """Whether a token is drawn after a pass over the first `count` new ids."""
        return count == len(self.new)

    def take_over(self, other: "Request", count: int) -> None:
        """The first `count` ids, which `other` has read, count as read."""
        self.cache.take_over(other.cache, count)
        self.advance(count - len(self.cached))

    def advance(self, count: int) -> bool:
        """After a pass over the first `count` new ids: whether those were all, so that a token is to be drawn."""
        self.cached += self.new[:count]
        self.new = self.new[count:]
        if self.new:
            self.new_types = self.new_types and self.new_types[count:]
        return not self.new

    def add(self, token: int | Exception) -> None:
        """The token that was drawn, or why none could be."""
        if isinstance(token, Exception):
            self.error = token
            return
        self.reply.append(token)
        for each in filter(None, (self, self.guide)):
            each.new = [token]
            each.new_types = each.new_types and each.new_types[-1:]
