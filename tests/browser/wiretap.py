"""Record every byte that a browser sends: a relay between it and the server."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(kw_only=True, slots=True)
class Wiretap:
    url: str
    sent: bytearray = field(default_factory=bytearray)
    """Bytes from the browser, over all connections."""


@contextmanager
def wiretap(url: str) -> Iterator[Wiretap]:
    """Relay connections to the server at `url`."""
    server = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        tap = Wiretap(url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        threading.Thread(target=_accept, args=(listening, server, tap), daemon=True).start()
        yield tap


def _accept(listening: socket.socket, server: tuple[str, int], tap: Wiretap) -> None:
    # Closing the socket ends this.
    with contextlib.suppress(OSError):
        while True:
            browser, _ = listening.accept()
            upstream = socket.create_connection(server)
            threading.Thread(target=_relay, args=(browser, upstream, tap.sent), daemon=True).start()
            threading.Thread(target=_relay, args=(upstream, browser, None), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            if kept is not None:
                kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
