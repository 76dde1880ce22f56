"""Read and check the lines of a batch's input file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medmoe.server.schemas.json_text import UTF8_BYTE_ORDER_MARK, InvalidJSON, parse_json
from medmoe.server.schemas.openai.batch import BatchEndpoint, BatchError

_MOST_ERRORS = 100
_BEYOND_BODY = 64 * 1024
"""Bytes of a line beside its body."""
_MAX_ITEMS = 16 * 1024 + 64
"""Values of a line, as many as a request's body may have, and its own; more are not parsed."""
_MARKS = (b",", b"[", b"{")
_BLANK = b"\r\n\t " + UTF8_BYTE_ORDER_MARK
_BLANK_LINES = 2
"""Lines, blank ones included, in one that counts."""


class _Parsed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InputLine:
    """A request of a batch, and its place in the file."""

    custom_id: str
    offset: int
    length: int


class InputErrors(Exception):
    """The file cannot be a batch's input."""

    def __init__(self, errors: list[BatchError]) -> None:
        super().__init__()
        self.errors = tuple(errors)


def read_lines(path: Path, *, endpoint: BatchEndpoint, max_lines: int, max_body_bytes: int) -> tuple[InputLine, ...]:
    """Return the lines of a file that is wholly valid. Blocks. Raises InputErrors, OSError."""
    lines: dict[str, InputLine] = {}
    errors: list[BatchError] = []
    with path.open("rb") as file:
        for number, offset, line in _lines(file, limit=max_body_bytes + _BEYOND_BODY):
            is_blank = not line.strip(_BLANK)
            if (len(lines) >= max_lines and not is_blank) or number > _BLANK_LINES * max_lines:
                errors.append(_error("too_many_lines", f"there are over {max_lines} lines (MEDMOE_BATCH_MAX_LINES)"))
                break
            if is_blank:
                continue
            custom_id = _check(line, endpoint=endpoint, limit=max_body_bytes + _BEYOND_BODY)
            if isinstance(custom_id, str) and custom_id in lines:
                custom_id = _error("duplicate_custom_id", "an earlier line has this custom_id", param="custom_id")
            if isinstance(custom_id, BatchError):
                errors.append(custom_id.model_copy(update={"line": number}))
                if len(errors) == _MOST_ERRORS:
                    break
                continue
            lines[custom_id] = InputLine(custom_id, offset, len(line))
    if not lines and not errors:
        errors.append(_error("empty_file", "the file has no lines"))
    if errors:
        raise InputErrors(errors)
    return tuple(lines.values())


def body_of(path: Path, line: InputLine) -> dict[str, Any]:
    """Return the body of a checked line. Blocks. Raises OSError, ValueError when the file has changed."""
    with path.open("rb") as file:
        file.seek(line.offset)
        body: dict[str, Any] = parse_json(file.read(line.length))["body"]
    return body


def _lines(file: BinaryIO, *, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, offset and text of each line; of a longer one than `limit` its beginning."""
    number = offset = 0
    while line := file.readline(limit + 1):
        number += 1
        yield number, offset, line
        while not line.endswith(b"\n") and (more := file.readline(limit + 1)):
            line = more
        offset = file.tell()


def _check(line: bytes, *, endpoint: BatchEndpoint, limit: int) -> str | BatchError:
    """Return the line's custom_id, or its error, whose message quotes nothing of the line."""
    if len(line) > limit:
        return _error("line_too_long", "the line is longer than a request may be (MEDMOE_MAX_BODY_BYTES)")
    if sum(line.count(mark) for mark in _MARKS) > _MAX_ITEMS:
        return _error("line_too_long", f"the line has over {_MAX_ITEMS} values")
    try:
        found = parse_json(line)
    except InvalidJSON as error:
        return _error("invalid_json_line", f"the line {error}")
    if not isinstance(found, dict):
        return _error("invalid_json_line", "the line is not a JSON object")
    try:
        parsed = _Parsed.model_validate(found)
    except ValidationError as error:
        return _problem(error)
    if parsed.url != endpoint:
        return _error("mismatched_url", f"the line's url is not the batch's endpoint, {endpoint}", param="url")
    if parsed.body.get("stream"):
        return _error("unsupported_parameter", "lines of batches are not streamed", param="body.stream")
    return parsed.custom_id


def _problem(error: ValidationError) -> BatchError:
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if problem["type"] == "extra_forbidden":
        return _error("invalid_line", f"unknown field; a line has {', '.join(_Parsed.model_fields)}")
    code = "missing_required_parameter" if problem["type"] == "missing" else "invalid_line"
    return _error(code, problem["msg"], param=".".join(map(str, problem["loc"])))


def _error(code: str, message: str, *, param: str | None = None) -> BatchError:
    return BatchError(code=code, message=f"{message[:1].upper()}{message[1:]}.", param=param)
