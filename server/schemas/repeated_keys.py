"""Find a key that comes twice in a JSON object: parsers differ in which of its values they take (RFC 8259, 4)."""

import json
from typing import Any

QUOTE = b'"'
_LONG = 4096
"""Bytes of a text that is no key."""


class _RepeatedKey(Exception):
    """An object has a key twice."""


def has_repeated_key(body: bytes | bytearray, document: Any, *, quotes: int) -> bool:
    """Return whether an object in valid JSON repeats a key.

    `document` is what was parsed, `quotes` the number of `"` in the body.

    Two quotes for each string that was parsed mean that none was dropped. Only of another body, such as one with an
    escaped quote, are the keys compared.
    """
    strings = _strings(document)
    if quotes == 2 * len(strings):
        return False
    # Nearly always the image, which holds no key and takes long to parse.
    longest = max(strings, key=len, default="").encode()
    if len(longest) > _LONG:
        before, _, after = body.partition(longest)
        body = before + after
    try:
        json.loads(body, object_pairs_hook=_without_repeats)
    except _RepeatedKey:
        return True
    return False


def _without_repeats(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _RepeatedKey


def _strings(value: Any) -> list[str]:
    """Return all keys and texts of parsed JSON."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for each in value.values() for text in _strings(each))]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return []
