"""The body of a call, looked at before Gradio: what it would stumble over is refused here with one sentence."""

import json
import re
from typing import Any, NamedTuple, cast

from gradio.blocks import BlockFunction, Blocks
from starlette.types import Message, Receive

SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
KNOWN = ("data", "fn_index", "session_hash", "event_data", "trigger_id", "event_id")
NEEDED = 2  # values of a call of the endpoint for programs: persona and turns
FILE_KEYS = {"meta", "_type", "path", "url", "orig_name"}  # Gradio would fetch what they name


class Malformed(Exception):
    """Its text is the sentence that the caller gets."""

    def __init__(self, sentence: str, status: int = 400):
        super().__init__(sentence)
        self.status = status


class Call(NamedTuple):
    body: bytes  # to be handed on: known fields only, and no half characters
    session: str | None
    function: BlockFunction | None  # which one it starts, if any


def read_call(body: bytes, path: str, blocks: Blocks) -> Call:
    """`path` begins with one of routes.CALLS; raises Malformed."""
    fields = _parse(body)
    action, _, name = path.removeprefix("/gradio_api/").partition("/")
    if action in ("cancel", "reset"):
        return _stopping(fields, action == "cancel")
    if path.startswith("/gradio_api/call/v2/"):  # arguments by name; it knows no sessions
        function = _by_name(path.rpartition("/")[2], blocks)
        _refuse_files(list(fields.values()))
        return Call(_encode(fields), None, function)
    if not isinstance(fields.get("data"), list):
        raise Malformed("A call needs a list named data.")
    _refuse_files(fields["data"])
    session = _session(fields, required=action == "queue")
    number, trigger = fields.get("fn_index"), fields.get("trigger_id")
    if not (trigger is None or type(trigger) is int):
        raise Malformed("The field trigger_id must be a whole number.")
    if number is None and action != "queue":
        function = _by_name(name, blocks)
    elif type(number) is int and number in blocks.fns:
        function = blocks.fns[number]
    else:
        raise Malformed("This page has no function of that number.", 404)
    if action == "run" and function.queue:
        raise Malformed("This function is called through the queue only.", 404)
    if function.api_name == "chat":
        fields["data"] = _with_defaults(fields["data"], function)
    if len(fields["data"]) != len(function.inputs):
        raise Malformed(f"This function takes {len(function.inputs)} values.")
    known = {key: fields[key] for key in KNOWN if key in fields}
    return Call(_encode(known), session, function)


def _parse(body: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        fields = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed("The body of a call must be JSON.") from error
    if not isinstance(fields, dict):
        raise Malformed("The body of a call must be a JSON object.")
    return fields


def _encode(fields: dict[str, Any]) -> bytes:
    """Half a surrogate pair becomes a question mark: it could not be sent back to anybody."""
    try:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
    except (RecursionError, ValueError) as error:
        raise Malformed("The body of a call is nested too deeply.") from error


def _session(fields: dict[str, Any], required: bool) -> str | None:
    session = fields.get("session_hash")
    if session is None and not required:
        return None
    if not isinstance(session, str) or not SESSION.fullmatch(session):
        raise Malformed("The field session_hash must be up to 64 letters and digits.")
    return session


def _stopping(fields: dict[str, Any], stops: bool) -> Call:
    kept: dict[str, Any] = {
        key: fields[key] for key in ("session_hash", "fn_index", "event_id") if key in fields
    }
    session = _session(kept, required=False)
    wanted = ("event_id", "session_hash", "fn_index") if stops else ("event_id",)
    if not all(key in kept for key in wanted):
        raise Malformed(f"This call needs the fields {', '.join(wanted)}.")
    if not all(isinstance(kept.get(key, ""), str) for key in ("session_hash", "event_id")):
        raise Malformed("The field event_id must be text.")
    if "fn_index" in kept and type(kept["fn_index"]) is not int:
        raise Malformed("The field fn_index must be a whole number.")
    return Call(_encode(kept), session, None)


def _with_defaults(values: list, function: BlockFunction) -> list:
    """Of the endpoint for programs persona and turns must be given, settings may be left out."""
    if len(values) < NEEDED:
        raise Malformed(
            f"This function takes {NEEDED} to {len(function.inputs)} values: the persona, the turns, and settings."
        )
    return values + [cast(Any, setting).value for setting in function.inputs[len(values) :]]


def _by_name(name: str, blocks: Blocks) -> BlockFunction:
    for function in blocks.fns.values():
        if function.api_name == name and function.api_visibility == "public":
            return function
    raise Malformed("This page has no function of that name.", 404)


def _refuse_files(value: Any, depth: int = 0) -> None:
    if depth > 20:
        raise Malformed("The body of a call is nested too deeply.")
    if isinstance(value, dict):
        if FILE_KEYS & value.keys():
            raise Malformed("This page takes no files.")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _refuse_files(item, depth + 1)


def replay(body: bytes, receive: Receive) -> Receive:
    """Gives the app this body, and after it whatever else comes from the client."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
