"""Parse JSON text, and refuse what other parsers read differently (RFC 8259, 4 and 8.1)."""

import json
from typing import Any

from pydantic_core import from_json

QUOTE = b'"'
UTF8_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_WIDEST_CHARACTER = 4


class InvalidJSON(ValueError):
    """Say what a text is instead of JSON, as a sentence without its subject."""


class _RepeatedKey(Exception):
    """An object has a key twice."""


def parse_json(text: bytes | bytearray, *, quotes: int | None = None, is_whole: bool = True) -> Any:
    """Return the value of a UTF-8 text, with or without a byte order mark, or of the beginning of one.

    `quotes` is the number of `"` in it, or an odd number for very many. A number may be NaN or infinite: validation
    names its field. Raises InvalidJSON.
    """
    if text.startswith(UTF8_BYTE_ORDER_MARK):
        text = text[len(UTF8_BYTE_ORDER_MARK) :]
    # All ASCII has a zero byte in UTF-16 and UTF-32, and JSON begins with ASCII.
    elif text.startswith(_UTF16_BYTE_ORDER_MARKS) or 0 in text[:_WIDEST_CHARACTER]:
        raise InvalidJSON("is not in UTF-8; JSON is sent in no other encoding")
    try:
        value = from_json(text, allow_partial=not is_whole)
    except ValueError as error:
        raise InvalidJSON("is not valid JSON") from error
    if is_whole and _has_repeated_key(text, value, quotes=text.count(QUOTE) if quotes is None else quotes):
        raise InvalidJSON("has a key twice in one object")
    return value


def _has_repeated_key(text: bytes | bytearray, value: Any, *, quotes: int) -> bool:
    """Return whether an object of valid JSON repeats a key.

    Two quotes for each string that was parsed mean that none was dropped. Only of another text, such as one with an
    escaped quote, are the keys compared.
    """
    if quotes == 2 * _strings(value):
        return False
    try:
        # Numbers take no part, and long ones would be refused here.
        json.loads(text.decode(), object_pairs_hook=_without_repeats, parse_int=len, parse_float=len)
    except _RepeatedKey:
        return True
    return False


def _without_repeats(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _RepeatedKey


def _strings(value: Any) -> int:
    """Return the number of keys and texts in parsed JSON."""
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        return len(value) + sum(map(_strings, value.values()))
    return sum(map(_strings, value)) if isinstance(value, list) else 0
