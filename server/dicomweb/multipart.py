"""Parse a multipart/related response that holds one DICOM object, while it arrives."""

import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from medmoe.server.dicomweb.errors import InstanceTooLarge, InvalidSourceAnswer

DICOM = "application/dicom"
MULTIPART = "multipart/related"
_MAX_HEADERS = 16
_MAX_HEADER_BYTES = 4096
_MAX_HEAD = _MAX_HEADERS * _MAX_HEADER_BYTES
"""Bytes until the object begins."""
_END_OF_HEADERS = b"\r\n\r\n"
_FOLD = re.compile(rb"\r\n[ \t]+")


def media_type(content_type: bytes) -> tuple[str, dict[bytes, bytes]]:
    """Return the lower-case media type and the parameters of a Content-Type header."""
    kind, parameters = parse_options_header(content_type)
    return kind.decode("latin-1").strip().lower(), parameters


class SingleInstance:
    """Collects the only part of a multipart/related body: at most `max_bytes` of application/dicom."""

    def __init__(self, boundary: bytes, *, max_bytes: int) -> None:
        """Raise InvalidSourceAnswer for a boundary that RFC 2046 does not allow."""
        self.data = bytearray()
        self.complete = False
        """Whether the closing boundary has come."""
        self._max_bytes = max_bytes
        self._headers: dict[str, str] = {}
        self._name = self._value = b""
        self._begun = False
        self._head: bytearray | None = bytearray()
        """What has come before the object; None once it has begun."""
        line = rb"(?:^|\r\n)(--" + re.escape(boundary) + rb")[ \t]*"
        self._begin_of_part = re.compile(line + rb"(\r\n(?:\r\n|[^\r].*?\r\n\r\n))", re.DOTALL)
        if not 1 <= len(boundary) <= 70:
            raise InvalidSourceAnswer()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_begin": self._next_header,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._check_headers,
                "on_part_data": self._add,
                "on_part_end": self._check_length,
                "on_end": self._end,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER_BYTES,
        )

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes. Raises InvalidSourceAnswer, InstanceTooLarge."""
        if self._head is not None:
            self._head += chunk
            is_new = _END_OF_HEADERS in self._head[-len(chunk) - len(_END_OF_HEADERS) :]
            found = self._begin_of_part.search(self._head) if is_new else None
            if found is None:
                if len(self._head) > _MAX_HEAD:
                    raise InvalidSourceAnswer()
                return
            # RFC 2046 allows a preamble, padding, and headers of several lines; the parser knows none of them.
            chunk = found[1] + _FOLD.sub(b" ", found[2]) + self._head[found.end() :]
            self._head = None
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidSourceAnswer() from error

    def _begin(self) -> None:
        if self._begun:
            raise InvalidSourceAnswer("the source sends several objects where one was asked for")
        self._begun = True

    def _next_header(self) -> None:
        self._name = self._value = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()

    def _check_headers(self) -> None:
        if media_type(self._headers.get("content-type", DICOM).encode("latin-1"))[0] != DICOM:
            raise InvalidSourceAnswer("the source sends something else than DICOM")
        if self._headers.get("content-transfer-encoding", "binary").lower() != "binary":
            raise InvalidSourceAnswer("the source encodes the object, which was not asked for")

    def _add(self, data: bytes, start: int, end: int) -> None:
        if len(self.data) + end - start > self._max_bytes:
            raise InstanceTooLarge.over(self._max_bytes)
        self.data += data[start:end]

    def _check_length(self) -> None:
        announced = self._headers.get("content-length")
        if announced is not None and announced != str(len(self.data)):
            raise InvalidSourceAnswer("the source sends another number of bytes than it announces")

    def _end(self) -> None:
        self.complete = self._begun
