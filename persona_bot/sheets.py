"""Character sheets as people paste them, brought to sentences in the first person: Markdown, W++ and JSON.

    ## Personality          [Character("Anna")           {"name": "Anna",
    - kind                   Age("24")                    "likes": ["tea", "rain"],
    - **Hair:** red          Likes("tea" + "rain")]       "home": {"town": "Oslo"}}

    i am kind.             my name is Anna.             my name is Anna.
    my hair is red.        i am 24 years old.           i like tea and rain.
                           i like tea and rain.         my town is Oslo.

Text that is no sheet stays as it is. All of it is a stranger's: bounded by the caller, read tolerantly, never evaluated.
"""

import json
import re
from collections.abc import Iterator, Sequence

Line = tuple[int, str]  # the number of the line that it comes from, counted from 1

MAX_FIELD_CHARS = 160  # of the values in one sentence; more of them make another one
MAX_DEPTH = 6  # of brackets in JSON that is looked into
_SAID = {  # how the values of a field are said; others as "my hair is red."
    "my name is": "name fullname full_name char_name",
    "i am": "personality traits trait mind character attributes species race gender sex nationality sexuality persona",
    "i work as": "job occupation profession",
    "i like": "likes like loves love hobbies hobby interests",
    "i dislike": "dislikes dislike hates hate",
}
SAID = {key: said for said, keys in _SAID.items() for key in keys.split()}
JOBS = {key for key, said in SAID.items() if said == "i work as"}
PROSE = {"description", "background", "backstory", "summary", "bio", "about", "history"}
KNOWN = {*SAID, *PROSE, "age", "appearance", "hair", "eyes"}
LABEL = re.compile(r"([A-Za-z][A-Za-z ]{1,29}?)\s*:\s+(\S.*)")

_HEADING = re.compile(
    r"##+\s(.*[^\s#:])|(?:\*\*|__)([^*:_]{1,40}):?(?:\*\*|__):?$|([A-Z][\w ]{1,29}):$|#\s+(\w+)$"
)
_BOLD_LABEL = re.compile(r"(?:\*\*|__)([^*:_]{1,40}?)(?::(?:\*\*|__)|(?:\*\*|__):)\s*(\S.*)")
_ITEM = re.compile(r"[-*+•]\s+(\S.*)")
_ROW = re.compile(r"\|\s*([^|]{1,40}?)\s*\|\s*([^|]+?)\s*\|$")
_WPP = re.compile(r"""([A-Za-z][\w /-]{0,30}?)\s*\(\s*((?:["“”][^"“”]*["“”][\s+,]*)+)\)""")
_QUOTED = re.compile(r"""["“”]([^"“”]*)["“”]""")
_NO_WORDS = re.compile(r"[\s\[\]{}(),;|:\"“”=*_-]*")


def plain_lines(text: str) -> Iterator[Line]:
    """The lines of a text with their numbers; fields of a sheet are sentences."""
    fields = _json_fields(text)
    if fields is not None:
        yield from ((1, line) for key, values in fields for line in _titled(key, values))
    elif _WPP.search(text):
        yield from _wpp_lines(text)
    else:
        yield from _markdown_lines(text)


def _titled(key: str, values: Sequence[str]) -> Iterator[str]:
    """`field`, behind a title line where it is the name."""
    if SAID.get(key.strip().lower()) == "my name is" and values:
        yield f"# {values[0]}"
    yield from field(key, values)


def field(key: str, values: Sequence[str]) -> Iterator[str]:
    """What one field of a sheet says: values that are sentences as they are, short ones together behind "my .. is"."""
    key = " ".join(key.lower().split())
    values = [" ".join(value.split()) for value in values]
    whole = [v for v in values if _reads_as_sentence(v) or (key in PROSE and v.count(" ") > 1)]
    short = [word for value in values if value not in whole and (word := value.strip(" ,.;"))]
    yield from whole
    if short and (not key or not key.isascii()):
        yield from ([f"{key}: {', '.join(short)}"] if key else short)
        return
    for some in _groups(short):
        if key in JOBS:
            some = [f"{'an' if w[0].lower() in 'aeiou' else 'a'} {w}" for w in some]
        joined = " and ".join([", ".join(some[:-1]), some[-1]] if some[1:] else some)
        if key == "age" and joined.isdecimal():
            yield f"i am {joined} years old."
        else:
            is_ = "are" if key.endswith("s") and not key.endswith("ss") else "is"
            yield f"{SAID.get(key) or f'my {key} {is_}'} {joined}."


def _groups(values: list[str]) -> Iterator[list[str]]:
    """The values in groups that fit into a sentence each."""
    group: list[str] = []
    for value in values:
        if group and sum(len(v) + 2 for v in group) + len(value) > MAX_FIELD_CHARS:
            yield group
            group = []
        group.append(value)
    if group:
        yield group


def _reads_as_sentence(value: str) -> bool:
    words = value.split()
    spoken = bool(words) and words[0].lower() in ("i", "i'm", "my", "he", "she", "they", "you")
    spoken = spoken or value.startswith(("{{", "<"))
    return (
        len(value) > MAX_FIELD_CHARS
        or (len(words) > 6 and "," not in value)
        or (len(words) > 2 and (spoken or bool(re.search(r"[.!?…。！？।؟۔]\W*$", value))))
    )


def _json_fields(text: str) -> list[tuple[str, list[str]]] | None:
    """(key, texts) of all that a JSON sheet says; None when the text is no JSON."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        sheet = json.loads(text)
    # ValueError: also a number of too many digits; RecursionError: thousands of brackets
    except (ValueError, RecursionError):
        return None
    return list(_walk("", sheet, 0))


def _walk(key: str, value: object, depth: int) -> Iterator[tuple[str, list[str]]]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _walk(inner.replace("_", " "), item, depth + 1)
    elif isinstance(value, list):
        texts = [str(item) for item in value if _is_said(item)]
        if texts:
            yield key, texts
        for item in value:
            if isinstance(item, (dict, list)):
                yield from _walk(key, item, depth + 1)
    elif value is True:
        yield "traits", [key]
    elif _is_said(value):
        yield key, str(value).splitlines()


def _is_said(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _wpp_lines(text: str) -> Iterator[Line]:
    """`Likes("tea" + "rain")` anywhere in the text; what stands between such fields stays as it is."""
    end = 0
    for match in _WPP.finditer(text):
        yield from _between(text, end, match.start())
        number = text.count("\n", 0, match.start(1)) + 1
        key = "name" if match[1].lower() in ("character", "char") else match[1]
        yield from ((number, line) for line in _titled(key, _QUOTED.findall(match[2])))
        end = match.end()
    yield from _between(text, end, len(text))


def _between(text: str, start: int, end: int) -> Iterator[Line]:
    first = text.count("\n", 0, start) + 1
    for number, line in enumerate(text[start:end].splitlines(), first):
        if not _NO_WORDS.fullmatch(line):
            yield number, line


def _markdown_lines(text: str) -> Iterator[Line]:
    """Short items under a heading become one field of that name; bold labels and rows of a table are fields."""
    heading, first = "", 0
    items: list[str] = []
    is_table = "|--" in text or "|:-" in text
    for number, line in enumerate([*text.splitlines(), "## end"], 1):
        line = line.strip()
        item = _ITEM.match(line)
        if heading and len(heading.split()) < 3 and item and _is_short(item[1]):
            items, first = [*items, item[1]], first if items else number
            continue
        if items:
            yield from ((first, said) for said in field(heading, items))
            items = []
        title = _HEADING.match(line)
        if title and not (title[1] or title[2]) and (title[3] or title[4]).lower() not in KNOWN:
            title = None  # a name, or a line that ends with a colon
        words = item[1] if item else line
        label = LABEL.fullmatch(words)
        known = label if label and label[1].lower() in KNOWN else None
        labelled = _BOLD_LABEL.match(words) or (is_table and _ROW.match(line)) or known
        if title:
            heading = next(filter(None, title.groups())).strip("*_ ")
        elif labelled:
            if not _NO_WORDS.fullmatch(labelled[1] + labelled[2]):
                key, values = labelled[1].strip("*_ "), values_of(labelled[2])
                yield from ((number, said) for said in _titled(key, values))
        elif line:
            heading = heading if item else ""
            yield number, line


def _is_short(item: str) -> bool:
    return (
        len(item.split()) <= 4
        and not re.search(r"[:.!?。！？।]", item)
        and not _reads_as_sentence(item)
    )


def values_of(text: str) -> list[str]:
    """`tea, rain` -> ["tea", "rain"]; a sentence with commas stays whole."""
    if _reads_as_sentence(text):
        return [text]
    return re.split(r"\s*[,;]\s*", text)
