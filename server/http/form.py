"""Parse a multipart form in memory: images of patients do not belong in a temporary file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from medmoe.server.errors import ClientDisconnected, MalformedBody
from medmoe.server.http.json_body import require_plain_body

_CHARSETS = (b"utf-8", b"utf8", b"us-ascii")


class _InMemoryParser(MultiPartParser):
    """Parse a form without files on the disk, and refuse text that is not UTF-8 and a form without its end."""

    spool_max_size = 2**62
    _ended = False

    def on_part_end(self) -> None:
        """Take the part. Raises MalformedBody for text that the framework would read as Latin-1."""
        if self._current_part.file is None:
            try:
                self._current_part.data.decode()
            except UnicodeDecodeError as error:
                raise MalformedBody("a field of the form is not UTF-8 text") from error
        super().on_part_end()

    def on_end(self) -> None:
        """Note the closing boundary."""
        self._ended = True

    async def parse(self) -> FormData:
        """Return the form. Raises MalformedBody where it was cut, which would have lost its last field."""
        form = await super().parse()
        if not self._ended:
            await form.close()
            raise MalformedBody("the form ends before its closing boundary")
        return form


@asynccontextmanager
async def received_form(
    request: Request, *, max_files: int, max_fields: int, max_field_bytes: int
) -> AsyncIterator[FormData]:
    """Parse the request's form, and close its files after the block.

    Raises MalformedBody, UnsupportedContentType, BodyTooLarge, ClientDisconnected.
    """
    require_plain_body(request)
    _, options = parse_options_header(request.headers.get("content-type"))
    # Some of Python's codecs take quadratic time.
    if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise MalformedBody("the form is not in UTF-8; leave charset out of Content-Type")
    parser = _InMemoryParser(
        request.headers, request.stream(), max_files=max_files, max_fields=max_fields, max_part_size=max_field_bytes
    )
    try:
        form = await parser.parse()
    except (MultiPartException, LookupError, UnicodeError) as error:
        # The parser raises KeyError when Content-Type names no boundary, the others for an unknown charset.
        raise MalformedBody("the body is not valid multipart/form-data, or has too many or too long parts") from error
    except ClientDisconnect as error:
        raise ClientDisconnected("the client left while sending") from error
    try:
        yield form
    finally:
        await form.close()
