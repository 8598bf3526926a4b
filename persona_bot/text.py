"""Texts to ids and back, as people type them: no typed text becomes a control token, and Persona-Chat's blanks go."""

import re
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# whether control tokens are read as text is a switch inside the tokenizer, which all threads share
ENCODING = threading.Lock()
KNOWN_TEXTS = 1024  # whose ids a layout keeps: a turn is read again with every later one


def known_texts(
    tokenizer: "PreTrainedTokenizerBase", banned: set[int], line: Sequence[int] = ()
) -> Callable[[str], tuple[int, ...]]:
    """`encode_text` that remembers the ids of the texts that were asked for lately; `line` is behind_a_line's."""

    @lru_cache(KNOWN_TEXTS)
    def known(text: str) -> tuple[int, ...]:
        return tuple(behind_a_line(lambda one: encode_text(tokenizer, one, banned), text, line))

    return known


def encode_text(tokenizer: "PreTrainedTokenizerBase", text: str, banned: set[int]) -> list[int]:
    """Ids of a user's text. Special tokens written in it are split into ordinary ones; what is left of them is dropped."""
    clean = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates crash the tokenizer
    with ENCODING:
        ids = tokenizer(clean, add_special_tokens=False, split_special_tokens=True).input_ids
    return [i for i in ids if i not in banned]


def behind_a_line(encode: Callable[[str], list[int]], text: str, line: Sequence[int]) -> list[int]:
    """A text's ids in the midst of others. Llama's kind of tokenizer puts a blank before all that it is given: `line` is
    what it makes of a line break, with that blank; empty for others."""
    if line and (ids := encode(f"\n{text}"))[: len(line)] == line:
        return ids[len(line) :]
    return encode(text)


def spelled(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, set[int]]:
    """(how many ids up to the last that has a text, those among them that have none): heads are often padded beyond."""
    known = set(tokenizer.get_vocab().values())
    count = max(known) + 1
    return count, set(range(count)) - known


def decode_text(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """A reply's text, without the blank that many tokenizers put in front of a word."""
    return raw_text(tokenizer, ids).lstrip()


def raw_text(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    # a list of texts only for a list of lists
    text: Any = tokenizer.decode(
        list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def settled(text: str) -> str:
    """The text without what a next token may complete or take back: half a character, and white space at its end."""
    while text and (text[-1] == "\ufffd" or text[-1].isspace()):
        text = text.rstrip().rstrip("\ufffd")
    return text


# not before .5 or .net, and not before a smiley: "fine :)" keeps its space, and "fine : )" becomes
# that
_SPACE_BEFORE = re.compile(
    r" ([?!,%)\]]|\.(?!\w)|[:;](?! ?-? ?[()DP])|'(?:s|m|re|ve|d|ll|t)\b|n't\b)"
)

HALF_A_FACE = re.compile(r"-?\s*[:;]\s+")  # read backwards


def tidy(text: str) -> str:
    """Text as people type it: Persona-Chat's `hi , i 'm fine !` becomes `hi, i'm fine!`. Idempotent."""
    return _SPACE_BEFORE.sub(r"\1", " ".join(text.split()))


def untidy_tail(text: str) -> int:
    """Where the end of a growing text begins that `tidy` may yet join to what follows: its last word, and a `:` or `: -`
    before it, which may become a face."""
    end = (
        len(text) - len(text.split()[-1]) if text.split() and not text[-1].isspace() else len(text)
    )
    backwards, faces = text[:end].rstrip()[::-1], 0
    while face := HALF_A_FACE.match(backwards, faces):
        faces = face.end()
    return len(backwards) - faces


_ASKED = re.compile(
    r"(\w+, )?(who|what|whats|what's|when|where|wheres|where's|which|why|how|hows|how's|do|does|did|are|is|was|were|am|can|could"
    r"|will|would|should|have|has)\b"
)


def asks(turn: str) -> bool:
    """Whether a turn asks for something by name; "why?" and "and you?" ask for whatever comes next."""
    asked = turn.rstrip(" \"')!.").endswith(("?", "\uff1f")) or _ASKED.match(turn.lower().lstrip())
    return bool(asked) and len(turn.split()) > 2
