"""Multipart responses in the forms that RFC 2046 allows: each gives the object, byte for byte."""

import pytest

from medmoe.server.dicomweb.errors import InvalidSourceAnswer
from medmoe.server.dicomweb.multipart import SingleInstance, media_type

OBJECT = b"\0DICM\r\n\r\n \r\n\t--b\r\n--\r\nb--" * 50
"""With what may be taken for a header, a boundary and their ends."""
HEADERS = b"Content-Type: application/dicom\r\n"


def body(
    boundary: bytes = b"b0", *, before: bytes = b"", padding: bytes = b"", headers: bytes = HEADERS, after: bytes = b""
) -> bytes:
    return b"%b--%b%b\r\n%b\r\n%b\r\n--%b--%b" % (before, boundary, padding, headers, OBJECT, boundary, after)


def parsed(content_type: bytes, body: bytes, *, size: int) -> bytes | None:
    """Return the object of a body that comes in pieces of `size` bytes, None where its end does not come."""
    parser = SingleInstance(media_type(content_type)[1].get(b"boundary", b""), max_bytes=len(OBJECT))
    for start in range(0, len(body), size):
        parser.feed(body[start : start + size])
    return bytes(parser.data) if parser.complete else None


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (b"boundary=b0", body()),
        (b"boundary=b0", body(before=b"This is a multipart message.\r\n\r\nIt has --b0 one part.\r\n")),
        (b"boundary=b0", body(before=b"\r\n", padding=b" \t", after=b"  \r\nThe end.")),
        (b"boundary=b0", body(headers=b"")),
        (
            b"boundary=b0",
            body(headers=b"Content-Type: application/dicom;\r\n\ttransfer-syntax=1.2\r\nMIME-Version: 1\r\n"),
        ),
        (b"boundary=gc0pJq0M==", body(b"gc0pJq0M==")),
        (b'Boundary="a\'()+_,-./:=?b c"', body(b"a'()+_,-./:=?b c")),
    ],
)
def test_the_object_comes_out_byte_for_byte(kind: bytes, sent: bytes, size: int) -> None:
    assert parsed(b'multipart/related; type="application/dicom"; ' + kind, sent, size=size) == OBJECT


@pytest.mark.parametrize("size", [7, 200_000])
@pytest.mark.parametrize("sent", [b"a" * 200_000, body(headers=HEADERS[:-2])], ids=["preamble", "headers"])
def test_what_comes_before_the_object_has_an_end(sent: bytes, size: int) -> None:
    with pytest.raises(InvalidSourceAnswer):
        parsed(b"multipart/related; boundary=b0", sent, size=size)


@pytest.mark.parametrize("sent", [body().replace(b"\r\n", b"\n"), b"--b0--\r\n", b""], ids=["lines", "end", "nothing"])
def test_what_has_no_part_has_no_object(sent: bytes) -> None:
    assert parsed(b"multipart/related; boundary=b0", sent, size=10_000) is None
