"""Read a JSON object from a request, and refuse what would cost more to parse than any valid request."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from starlette.requests import ClientDisconnect, Request

from medmoe.server.errors import ClientDisconnected, InvalidField, MalformedBody, UnsupportedContentType
from medmoe.server.schemas.json_text import QUOTE, InvalidJSON, parse_json

_MAX_ITEMS = 16 * 1024
"""Values in a body; commas inside of strings count too. A question has at most 4,000 characters."""
_COUNTED = (b",", b"[", b"{")
_MAX_QUOTES = 4 * _MAX_ITEMS
"""Quotation marks that are counted: two for each key and text. More are in texts."""
_EXACT = 2**53
"""Whole numbers below it are exact as floats."""


def require_plain_body(request: Request) -> None:
    """Raise UnsupportedContentType for a compressed body: its length would say nothing about its cost."""
    named = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    if any(encoding.strip() not in ("", "identity") for encoding in named):
        raise UnsupportedContentType(
            "compressed bodies are not read; send the body without Content-Encoding", accept_encoding="identity"
        )


def require_no_query(request: Request, *, known: Collection[str]) -> None:
    """Raise InvalidField for a field of the body in the address, where it would have no effect."""
    for name in request.query_params:
        if name in known:
            raise InvalidField("the field was sent in the address; send it in the body", param=name)


async def read_json_object(
    request: Request, *, known: Collection[str], offered: Collection[str] = ()
) -> dict[str, Any]:
    """Return the body as a dict whose keys are all `known`; whole floats at the top become integers.

    The message about an unknown field lists `offered`, or all of `known`.
    Raises MalformedBody, InvalidField, UnsupportedContentType, BodyTooLarge, ClientDisconnected.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedContentType("send application/json")
    require_plain_body(request)
    require_no_query(request, known=known)
    body, is_whole, quotes = await _read(request)
    try:
        document = parse_json(body, quotes=quotes, is_whole=is_whole)
    except InvalidJSON as error:
        raise MalformedBody(f"the body {error}") from error
    if not isinstance(document, dict):
        raise InvalidField("the body is not a JSON object")
    check_known(document, known=known, offered=offered or known)
    if not is_whole:
        raise InvalidField(f"the body has over {_MAX_ITEMS} values", param=_longest(document))
    return {name: _whole(value) for name, value in document.items()}


def check_known(names: Collection[str], *, known: Collection[str], offered: Collection[str]) -> None:
    """Raise InvalidField for names that are not `known`, which proposes the nearest `offered` ones.

    The message never repeats a name: a misplaced key may be a patient's.
    """
    for name in names:
        if name not in known:
            raise unknown_field(name, offered=offered)


def unknown_field(name: str, *, offered: Collection[str], within: str | None = None) -> InvalidField:
    """Return the error for a field that the route, or the object `within`, does not take."""
    near = get_close_matches(name[:64], sorted(offered), n=1)
    proposal = f"did you mean {near[0]}? " if near else ""
    taker = f"`{within}`" if within else "this route"
    return InvalidField(f"unknown field; {proposal}{taker} takes {', '.join(sorted(offered))}", param=within)


async def _read(request: Request) -> tuple[bytearray, bool, int]:
    """Return the body, or its beginning and False when it has too many values, and the number of its quotes.

    Past `_MAX_QUOTES`, which is even, the number stays at the next, which no strings have. The request keeps no copy.
    """
    body = bytearray()
    items = quotes = 0
    try:
        async for chunk in request.stream():
            body += chunk
            items += sum(_count(chunk, mark, most=_MAX_ITEMS) for mark in _COUNTED)
            quotes += _count(chunk, QUOTE, most=_MAX_QUOTES - quotes)
            if items > _MAX_ITEMS:
                return body, False, quotes
    except ClientDisconnect as error:
        raise ClientDisconnected("the client left while sending") from error
    return body, True, quotes


def _count(data: bytes, mark: bytes, *, most: int) -> int:
    """Return how often `mark` is in `data`, or a number over `most`.

    Nearly all bytes are of the image, where finding no mark is far cheaper than counting.
    """
    count, place = 0, data.find(mark)
    while place >= 0 and count <= most:
        count, place = count + 1, data.find(mark, place + 1)
    return count


def _longest(document: dict[str, Any]) -> str | None:
    """Return the name of the field with the most items."""
    sizes = {name: len(value) for name, value in document.items() if isinstance(value, list | dict)}
    return max(sizes, key=sizes.__getitem__) if sizes else None


def _whole(value: Any) -> Any:
    """Return the integer that a float like 100.0 stands for: some languages write every number so."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT else value
