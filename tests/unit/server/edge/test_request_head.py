"""A head that is read without a parser: only in the plainest form, and then as h11 reads it."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmoe.server.edge.request_head import RequestHead

HEAD = b"POST /v1/vqa HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"


def test_the_plainest_head_is_read() -> None:
    data = HEAD.replace(b"Host", b"X-Request-Id:  r 1 \t\r\nX-Empty:\r\nhoST")
    head = RequestHead.read(data + b"hello, and more")
    assert head is not None
    assert (head.path, head.size, head.body_size, head.keep) == ("/v1/vqa", len(data), 5, True)
    assert head.headers.items() == [("x-request-id", "r 1"), ("x-empty", ""), ("host", "a"), ("content-length", "5")]


@pytest.mark.parametrize(
    ("change", "to", "keep"),
    [
        (b"Host", b"Connection: close\r\nHost", False),
        (b"Host", b"Connection: Keep-Alive\r\nHost", True),
        (b"1.1", b"1.0", False),
        (b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n", False),
    ],
)
def test_a_connection_is_kept_as_h11_keeps_it(change: bytes, to: bytes, keep: bool) -> None:
    data = HEAD.replace(change, to)
    head = RequestHead.read(data)
    assert head is not None
    assert head.keep is keep
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data + b"hello")
    while type(connection.next_event()) is not h11.EndOfMessage:
        pass
    assert (connection.their_state is h11.DONE) is keep


@pytest.mark.parametrize(
    ("change", "to"),
    [
        (b"\r\n\r\n", b"\r\n"),
        (b"\r\n", b"\n"),
        (b"POST", b"GET"),
        (b"POST", b"post"),
        (b"POST ", b"\r\nPOST "),
        (b"/v1/vqa", b"/v1/vqa?x=1"),
        (b"/v1/vqa", b"/v1/%76qa"),
        (b"/v1/vqa", b"http://a/v1/vqa"),
        (b"HTTP/1.1", b"HTTP/2.0"),
        (b"HTTP/1.1", b"HTTP/1.1 "),
        (b"Host: a\r\n", b""),
        (b"Host: a", b"Host: a\r\nHost: b"),
        (b"Host: a", b"Host : a"),
        (b"Host: a", b" Host: a"),
        (b"Host: a", b"Host: a\r\n b"),
        (b"Host: a", b"Host: a\x00"),
        (b"Host: a", b"Host: a\rb"),
        (b"Host: a", b"Host: a\r\nX: \xc3\xa9"),
        (b"Host: a", b"Host: a\r\nno colon"),
        (b"Host: a", b"Host: a\r\nTransfer-Encoding: chunked"),
        (b"Host: a", b"Host: a\r\nExpect: 100-continue"),
        (b"Host: a", b"Host: a\r\nUpgrade: websocket"),
        (b"Host: a", b"Host: a\r\nConnection: upgrade"),
        (b"Host: a", b"Host: a\r\nConnection: close, x"),
        (b"Host: a", b"Host: a\r\nConnection: close\r\nConnection: close"),
        (b"Content-Length: 5\r\n", b""),
        (b"Length: 5", b"Length: "),
        (b"Length: 5", b"Length: +5"),
        (b"Length: 5", b"Length: 5, 5"),
        (b"Length: 5", b"Length: 5\r\nContent-Length: 5"),
        (b"Length: 5", b"Length: " + b"9" * 16),
        (b"Host: a", b"Host: a\r\nX: " + b"x" * 2**13),
    ],
)
def test_what_is_in_any_way_unusual_is_left_to_h11(change: bytes, to: bytes) -> None:
    assert RequestHead.read(HEAD.replace(change, to)) is None


LINE = (b"POST", b"GET", b" ", b"/v1/vqa", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b"\t", b"\x00", b"\xff")
FIELDS = (b"Host", b"Content-Length", b":", b": ", b"5", b"close", b"Connection", b"Transfer-Encoding", b"chunked")
PIECES = st.sampled_from((*LINE, *FIELDS))


@given(st.lists(PIECES, max_size=12), st.integers(0, len(HEAD)), st.integers(0, 12))
def test_whatever_is_read_h11_reads_alike(pieces: list[bytes], place: int, instead_of: int) -> None:
    data = HEAD[:place] + b"".join(pieces) + HEAD[place + instead_of :]
    head = RequestHead.read(data)
    if head is None:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"POST", head.path.encode())
    assert list(request.headers) == head.headers.raw
    assert connection.trailing_data[0] == data[head.size :]
    connection.receive_data(b"x" * head.body_size)
    body = 0
    while type(event := connection.next_event()) is h11.Data:
        body += len(event.data)
    assert (type(event), body) == (h11.EndOfMessage, head.body_size)
