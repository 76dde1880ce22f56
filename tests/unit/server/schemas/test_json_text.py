"""JSON text in every encoding and spelling, and what it may cost to read."""

import json
import time

import pytest
from starlette.requests import Request
from starlette.types import Message

from medmoe.server.http.json_body import read_json_object
from medmoe.server.schemas.json_text import InvalidJSON, parse_json

SIZE = 32 * 2**20
SLICE = 64 * 1024
LONG = "x" * 5000


def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_text() -> None:
    assert parse_json('{"a": "é"}'.encode("utf-8-sig")) == {"a": "é"}
    assert parse_json('{"a": "\ufeff"}'.encode()) == {"a": "\ufeff"}
    with pytest.raises(InvalidJSON, match="not valid JSON"):
        parse_json('\ufeff{"a": 1}'.encode("utf-8-sig"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "marked"])
def test_another_encoding_is_named(encoding: str, mark: str) -> None:
    with pytest.raises(InvalidJSON, match="not in UTF-8"):
        parse_json((mark + '{"a": 1}').encode(encoding))


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "marked"])
@pytest.mark.parametrize(
    "text",
    [
        '{"a": "\\ud800"}',
        '{"\\udc00": 1}',
        '{"a": ' + "[" * 300 + "]" * 300 + "}",
        '{"a": ' + "1" * 5000 + "}",
        '{\ufeff"a": 1}',
        '{"a": 1}\ufeff',
        '{"a": "\x01"}',
        "",
    ],
    ids=["surrogate", "key", "deep", "digits", "mark inside", "mark behind", "control", "empty"],
)
def test_what_no_parser_should_take_is_refused_with_a_mark_and_without(text: str, mark: str) -> None:
    with pytest.raises(InvalidJSON, match="not valid JSON"):
        parse_json((mark + text).encode())


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "marked"])
@pytest.mark.parametrize(
    "value",
    [LONG, f'"{LONG}', f'{LONG}"', f'"{LONG}"', f"\\{LONG}", f'","b": 1, "b": "{LONG}', "é" * 5000 + '"'],
    ids=len,
)
def test_a_key_that_comes_twice_is_found_beside_any_text(value: str, mark: str) -> None:
    for escaping in (True, False):
        text = json.dumps({"q": '"', "a": value, "n": [1e3, 10**400]}, ensure_ascii=escaping)
        assert parse_json((mark + text).encode())["a"] == value
        for twice in (text[:-1] + ', "\\u0061": 1}', '{"a": 1, ' + text[1:], text[:-1] + ', "o": [{"b": 1, "b": 1}]}'):
            with pytest.raises(InvalidJSON, match="twice"):
                parse_json((mark + twice).encode())


def arriving(body: bytes) -> Request:
    """A request whose body comes in slices."""
    slices = iter(range(0, len(body), SLICE))

    async def receive() -> Message:
        start = next(slices)
        return {"type": "http.request", "body": body[start : start + SLICE], "more_body": start + SLICE < len(body)}

    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}, receive)


async def seconds(body: bytes) -> float:
    """Return the processor time of a body, read or refused."""
    begun = time.process_time()
    try:
        await read_json_object(arriving(body), known=("image", "question"))
    except Exception as error:
        del error
    return time.process_time() - begun


def within(unit: bytes) -> bytes:
    """A body of one text that repeats `unit`, beside one with a quotation mark."""
    start, end = b'{"question": "\\"", "image": "', b'"}'
    return start + unit * ((SIZE - len(start) - len(end)) // len(unit)) + end


@pytest.mark.parametrize("unit", [b'"', b"\\", b"[", b'{"a":', b",", b"1", b'{"a":1},', b" ", b"\\ud800", b'"",'])
async def test_a_body_of_the_large_size_costs_little(unit: bytes) -> None:
    # 4 s for quotation marks when they were counted anew in each slice.
    assert await seconds(unit * (SIZE // len(unit))) < 1


@pytest.mark.parametrize("unit", [b"A", b'\\"', b"\\\\", b"\\/", b"\\u0041", b"\\ud83d\\ude00", "é".encode(), b'",'])
async def test_a_text_of_the_large_size_costs_little(unit: bytes) -> None:
    assert await seconds(within(unit)) < 1.5
