"""A line of a stranger's text as clean sentences: any script's marks, list marks, emphasis, macros, labels.

    "- i like *tea*. 2) i swim"      -> "i like tea.", "i swim"
    "我喜欢猫。我怕打雷！"              -> "我喜欢猫。", "我怕打雷！"
    "{{char}} has known {{user}}."   -> "i have known you."

What comes out goes in again unchanged: the page shows sentences in the box that it reads.
"""

import re
import unicodedata

from persona_bot.sheets import KNOWN, LABEL, field, values_of

_WIDE = "。！？｡॥।؟۔։።፧။។៕།"  # marks that end a sentence, with or without a blank behind them
_CLOSERS = "\"'”’)\\]」』）】》"
# letters of scripts that often leave the blank out, behind our marks as well
_OTHER = "\u0590-\u08ff\u0900-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_SENTENCE_END = re.compile(
    rf"(?:(?<=[.!?…])|(?<=[.!?…][{_CLOSERS}]))\s+"
    rf"|(?:(?<=[{_WIDE}])|(?<=[{_WIDE}][{_CLOSERS}]))\s*(?![{_WIDE}.!?…{_CLOSERS}\s])"
    rf"|(?<=[{_OTHER}][.!?])(?=[{_OTHER}])"
)
_NO_END = re.compile(
    r"\(?(?:mr|mrs|ms|dr|st|prof|vs|no|e\.g|i\.e|[^\W\d_](?:\.[^\W\d_])*|.*\.\.)\.", re.IGNORECASE
)
_MARKER = re.compile(r"^(?:[-*+#>–—·]+(?:\s+|$)|[•‣◦▪]\s*|\(?\d{1,2}[.)](?:\s+|$))+")
_NO_WORDS = re.compile(r"[\s\[\]{}(),;:|=_~`*#+\"-]*")
_EMPHASIS = re.compile(r"(?<![^\W_])\*|\*(?![^\W_])|__+|`+")  # but not 2*3
_EMOJI = re.compile("[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff]")

_MACRO = re.compile(r"(?<!\{)\{\{+([^{}]*)\}\}+|<(char|bot|user)>", re.IGNORECASE)
_VERBS = {
    "is": "am",
    "has": "have",
    "does": "do",
    "goes": "go",
    "isn't": "am not",
    "doesn't": "don't",
    "hasn't": "haven't",
}
_YOURS = {**_VERBS, "is": "are", "was": "were", "isn't": "aren't", "wasn't": "weren't"}
_CHAR, _USER = "\ue000", "\ue001"  # stand for the two while the words around them are looked at
_SPEAKER = re.compile(
    rf"([{_CHAR}{_USER}])('s\b|’s\b)?(?:(\s+)((?:\w+ly|always|never|often|still|also)\s+)?([\w']+))?"
)
_NO_VERB = {"this", "his", "as", "us", "its", "was", "always", "yes", "plus", "thus", "is"}


def clean(line: str) -> str:
    """The line without control, bidi and zero-width characters and lone surrogates, its white space single spaces.

    Zero-width joiners stay between letters of scripts that join (Persian, Hindi, Sinhala), and inside emoji.
    """
    spaced = " ".join(line.split())
    kept = [
        c
        for c in spaced
        if c in "\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co")
    ]
    text = "".join(c for k, c in enumerate(kept) if c not in "\u200c\u200d" or _joins(kept, k))
    return " ".join(text.split())


def _joins(text: list[str], k: int) -> bool:
    before, after = text[k - 1] if k else "", text[k + 1] if k + 1 < len(text) else ""
    if text[k] == "\u200d" and _EMOJI.match(before):
        return True
    return all(c > "\u02ff" and unicodedata.category(c)[0] in "LM" for c in (before, after))


def sentences(line: str) -> list[str]:
    """The sentences of a clean line."""
    pieces = [""]
    line = " ".join(in_first_person(_EMPHASIS.sub("", line)).split())
    for piece in _SENTENCE_END.split(_MARKER.sub("", line)):
        if _NO_END.fullmatch(pieces[-1].rpartition(" ")[2]):
            pieces[-1] += f" {piece}"
        else:
            pieces.append(piece)
    return [
        sentence for piece in pieces for sentence in _unlabelled(_MARKER.sub("", piece).strip())
    ]


def _unlabelled(piece: str) -> list[str]:
    """`Age: 24` as a sentence; a piece without words is none."""
    if piece.endswith(":") and piece[:-1].lower() in KNOWN:  # a heading with nothing under it
        return []
    label = None
    while (inner := LABEL.fullmatch(piece)) and inner[1].lower() in KNOWN:
        label, piece = inner, _MARKER.sub("", inner[2])
    if label and piece:
        return list(field(label[1], values_of(piece)))
    return [] if _NO_WORDS.fullmatch(piece) else [piece]


def in_first_person(text: str, name: str = "") -> str:
    """`{{char}}` and `{{user}}` as i and you, with their verbs; other macros go. `name` counts as the first."""
    text = _MACRO.sub(_stand_in, text)
    if "{{" in text or "}}" in text:
        text = text.replace("{", "").replace("}", "")
    if name:
        text = re.sub(rf"(?<!\w)(?<!name is ){re.escape(name)}(?!\w)", _CHAR, text)
    return _SPEAKER.sub(_pronoun, text)


def _stand_in(macro: re.Match) -> str:
    word = (macro[1] or macro[2] or "").strip().lower()
    return _CHAR if word in ("char", "bot") else _USER if word == "user" else ""


def _pronoun(match: re.Match) -> str:
    """Who is meant, by what stands around: i, me, my; you, your."""
    who, owns, space, adverb, word = match.groups()
    rest = f"{space or ''}{adverb or ''}{word or ''}"
    mine = who == _CHAR
    before = match.string[max(0, match.start() - 20) : match.start()].rstrip()
    subject = (
        not before
        or before[-1] in ".!?…;:,"
        or re.search(r"\b(?:and|but|that|because|when|if|as)$", before)
    )
    if owns:
        word_after = (adverb or word or "").strip()
        if word_after in ("a", "an", "the", "not") or word_after.endswith(
            "ing"
        ):  # {{char}}'s a baker
            return ("i am" if mine else "you are") + rest
        return ("my" if mine else "your") + rest
    if word is None or not subject:
        said = "i" if subject else "me"
        return (said if mine else "you") + rest
    return ("i" if mine else "you") + space + (adverb or "") + _verb(word, mine)


def _verb(word: str, mine: bool) -> str:
    known = (_VERBS if mine else _YOURS).get(word)
    if known or word in _NO_VERB or not word.endswith("s") or word.endswith("ss"):
        return known or word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("shes", "ches", "sses", "xes", "zes")) else word[:-1]
