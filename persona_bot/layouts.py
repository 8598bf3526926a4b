"""THE two layouts of a prompt, which the chat sends and the training learns; a checkpoint names its own in `persona_layout.json`:

    convai   <bos> persona <speaker2> partner <speaker1> reply <eos>      (GPT and GPT-2 of simpletransformers, token types)
    chat     the model's own chat template, the persona in the system turn (SmolLM2 and every other chat model)

Turns are plain strings that alternate and start with the partner's; an empty first turn means that the persona speaks
first. Every text is encoded on its own and joined as ids, so that whatever a user types stays text: no control token
can come out of it.
"""

import re
from collections.abc import Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.templates import ChatTemplate
from persona_bot.text import (
    ENCODING,
    behind_a_line,
    decode_text,
    known_texts,
    raw_text,
    settled,
    spelled,
    tidy,
    untidy_tail,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SILENCE = "__SILENCE__"  # Persona-Chat's word for a partner who has not spoken yet
CONVAI_TOKENS = ("<bos>", "<eos>", "<speaker1>", "<speaker2>", "<pad>")
INSTRUCTION = "Chat casually and stay in character, in one or two short sentences."

# what looks like a control token: <think>, </s>, <|end|>, <｜User｜>, [INST], [|user|]
TAG = re.compile(r"<[|｜/\w][^<>\s]*>|\[/?[A-Z_]+\]|\[\|[^\[\]\s]+\|\]")


class Segment(NamedTuple):
    """A run of ids that belongs together: a text, or the layout's own tokens around it."""

    ids: list[int]
    by_bot: bool  # whose token type it gets, where the layout has token types
    # words of the persona, with their end token where the layout keeps it: what training supervises
    is_reply: bool = False


class ConvaiLayout:
    """The layout of simpletransformers' ConvAIModel (`build_input_from_segments`): speaker tokens and token types."""

    name = "convai"

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_turns: int = 5):
        self.tokenizer = tokenizer
        self.max_turns = max_turns  # stock trains on the last 2 * max_history + 1 turns only
        id_of = tokenizer.get_vocab()
        self.bos, self.end_id, self.speaker1, self.speaker2, self.pad = (
            id_of[token] for token in CONVAI_TOKENS
        )
        self.stop_ids = {self.bos, self.end_id, self.speaker1, self.speaker2, self.pad}
        self.num_ids, textless = spelled(tokenizer)
        self.control_ids = set(tokenizer.all_special_ids) | self.stop_ids | textless
        self._known = known_texts(tokenizer, self.control_ids)
        # GPT's tokenizer splits punctuation off by itself, so text for people may be joined again;
        # GPT-2's does not
        self._spacing_matters = self.encode("hello , you .") != self.encode("hello, you.")

    def segments(
        self, persona: Persona, turns: Sequence[str], add_generation_prompt: bool
    ) -> list[Segment]:
        """The conversation as segments; with `add_generation_prompt` they end where the persona's next words begin."""
        persona_ids = [i for sentence in persona.sentences for i in self.encode(sentence)]
        parts = [Segment([self.bos, *persona_ids], True)]
        for k, turn in enumerate(turns):
            by_bot = k % 2 == 1
            parts.append(Segment([self.speaker1 if by_bot else self.speaker2], by_bot))
            if by_bot:
                parts.append(Segment(self.encode(turn), True, True))
            else:
                parts.append(Segment(self.encode(turn or SILENCE), False))
        return parts + [Segment([self.speaker1], True)] if add_generation_prompt else parts

    def encode(self, text: str) -> list[int]:
        return list(self._known(text))

    def decode(self, ids: Sequence[int]) -> str:
        text = decode_text(self.tokenizer, ids)
        return text if self._spacing_matters else tidy(text)

    def decode_settled(self, ids: Sequence[int]) -> str:
        """The beginning of `decode(ids)` that no further id changes."""
        text = decode_text(self.tokenizer, ids)
        return settled(text) if self._spacing_matters else tidy(text[: untidy_tail(text)])

    def token_types(self, parts: Sequence[Segment]) -> list[int]:
        return [self.speaker1 if part.by_bot else self.speaker2 for part in parts for _ in part.ids]


class ChatLayout:
    """The tokenizer's own chat template, rendered around placeholders so that texts are encoded on their own."""

    name = "chat"
    max_turns = None

    @staticmethod
    def tidy(text: str) -> str:
        """train.evaluate can score texts as a file writes them instead."""
        return tidy(text)

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self.num_ids, textless = spelled(tokenizer)
        self.control_ids = set(tokenizer.all_special_ids) | textless
        # words that were added are words; a tag is none, whether or not it is called special
        self.control_ids |= {
            id for id, token in added if token.special or TAG.fullmatch(str(token))
        }
        line = self._encode_whole("\n")
        self._line = line if len(line) > 1 else []
        self._known = known_texts(tokenizer, self.control_ids, self._line)
        self._known_first = known_texts(tokenizer, self.control_ids)
        # some put their blank behind a control token, too
        mark = next(iter(tokenizer.all_special_tokens), "")
        self._begins_anew = self._encode_whole(f"{mark}\n")[1:] == line
        # byte-level decoders take the letters of an added word for bytes
        self._words = {
            id: str(token)
            for id, token in added
            if id not in self.control_ids and tokenizer.decode([id]) != str(token)
        }
        self._template = ChatTemplate(tokenizer)
        self._before_reply = self._encode_literal(self._template.render(3, False).around(2)[0])
        last, inner = (self._template.render(count, False).around(2)[2] for count in (3, 4))
        # behind blanks the control token is the end, be it the next turn's; without one it is the text that follows
        marks = [self._first_control(last), self._first_control(inner)]
        found = marks[0] if marks[0] is not None or last.strip() else marks[1]
        text_ids = self._encode_literal(last or inner[: inner.startswith("\n")])
        if found is None and not text_ids:
            raise UserError(
                "This model's chat template writes nothing after a reply, so its end cannot be seen; use another model."
            )
        self.end_id = text_ids[0] if found is None else found
        self.stop_ids = {self.end_id, *marks, tokenizer.eos_token_id} - {None}

    def segments(
        self, persona: Persona, turns: Sequence[str], add_generation_prompt: bool
    ) -> list[Segment]:
        """The conversation as segments; with `add_generation_prompt` they end where the persona's next words begin."""
        texts = [system_text(persona), *map(self._said, turns)]
        parts: list[Segment] = []
        rendered = self._template.render(len(texts), add_generation_prompt)
        for literal, place in zip_longest(rendered.literals, rendered.places):
            ids = self._encode_literal(literal) if parts else self._encode_whole(literal)
            # the end token belongs to the reply it ends, where no blank stands between
            if parts and parts[-1].is_reply and ids[:1] == [self.end_id]:
                parts[-1] = parts[-1]._replace(ids=[*parts[-1].ids, ids[0]])
                ids = ids[1:]
            if ids:
                parts.append(Segment(ids, True))
            if place:
                is_reply = place.number > 0 and place.number % 2 == 0
                before = parts[-1].ids if parts else []
                text = texts[place.number]
                parts.append(
                    Segment(self.encode_reply(text), True, True)
                    if is_reply
                    else Segment(self._encode_text(place.blank + text, before), place.number == 0)
                )
        return parts

    def encode_reply(self, text: str) -> list[int]:
        """A reply of the persona's without its end, as the model writes it."""
        text = self._template.reply_blank + self._said(text)
        return self._encode_text(text, self._before_reply)

    def _said(self, turn: str) -> str:
        return "" if turn == SILENCE else self.tidy(turn)

    def encode(self, text: str) -> list[int]:
        return list(self._known(text))

    def _encode_text(self, text: str, before: Sequence[int]) -> list[int]:
        """The text's ids behind these."""
        if self._line and (not before or (self._begins_anew and before[-1] in self.control_ids)):
            return list(self._known_first(text))
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        if not any(i in self._words for i in ids):
            return decode_text(self.tokenizer, ids)
        runs = groupby(ids, lambda i: self._words.get(i))
        return "".join(
            word * len(list(run)) if word else raw_text(self.tokenizer, list(run))
            for word, run in runs
        ).lstrip()

    def decode_settled(self, ids: Sequence[int]) -> str:
        """The beginning of `decode(ids)` that no further id changes."""
        return settled(self.decode(ids))

    def token_types(self, parts: Sequence[Segment]) -> list[int] | None:
        """None: this layout has none."""
        return None

    def _first_control(self, literal: str) -> int | None:
        """The first control token that the literal itself spells: what a vocabulary lacks is none."""
        ids = [i for i in self._encode_literal(literal) if i in self.control_ids]
        words = self.tokenizer.convert_ids_to_tokens(ids)
        return next((i for i, w in zip(ids, words, strict=True) if w in literal), None)

    def _encode_literal(self, text: str) -> list[int]:
        return behind_a_line(self._encode_whole, text, self._line)

    def _encode_whole(self, text: str) -> list[int]:
        with ENCODING:
            return self.tokenizer(text, add_special_tokens=False).input_ids


Layout = ConvaiLayout | ChatLayout


def find_layout(
    tokenizer: "PreTrainedTokenizerBase", named: str | None = None, max_turns: int | None = None
) -> Layout:
    """The layout that a checkpoint names, else the one its tokens show; raises UserError when neither is known."""
    vocabulary, needed = tokenizer.get_vocab(), " ".join(CONVAI_TOKENS)
    has_convai = all(token in vocabulary for token in CONVAI_TOKENS)
    if named not in (None, "convai", "chat"):
        raise UserError(
            f"The checkpoint names the prompt layout {named!r}, but only 'convai' and 'chat' are known; update this program."
        )
    if named == "convai" and not has_convai:
        raise UserError(
            f"The checkpoint names the layout 'convai', but its tokenizer lacks some of {needed}; publish the tokenizer again."
        )
    if has_convai and named != "chat":
        return ConvaiLayout(tokenizer, max_turns or 5)
    if tokenizer.chat_template:
        return ChatLayout(tokenizer)
    raise UserError(
        f"The checkpoint has no prompt layout that is known here: its tokenizer has neither a chat template nor the tokens "
        f"{needed}; use a chat model, or one fine-tuned by train.finetune."
    )


def system_text(persona: Persona) -> str:
    """What the system turn of the chat layout says: an instruction, and the persona's sentences a line each."""
    lines = [tidy(s) for s in persona.sentences]
    return "\n".join([INSTRUCTION, "Your persona:", *lines]) if lines else INSTRUCTION
