"""Run a small HTTP service that answers with scripted replies."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """Describe a reply. `drop` closes the connection after `body`; `hang` sends nothing."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop: bool = False
    hang: bool = False


Answering = Callable[[str, Mapping[str, str], bytes], Reply]
"""Function from the path, headers and body of a request to a reply."""


def refusal(status: int, code: str, *, type_: str, **headers: str) -> Reply:
    """Return a reply with the service's error body."""
    error = {"type": type_, "code": code, "message": "No.", "param": None, "request_id": "r1"}
    return Reply(status=status, headers=headers, body=json.dumps({"error": error}).encode())


@dataclass(kw_only=True, slots=True)
class ScriptedService:
    """Hold a running service, what it still replies and what it was asked."""

    url: str
    replies: list[Reply | Answering]
    """Next replies; the last one repeats."""
    asked: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    """Path, headers and body of each request."""


@contextmanager
def scripted_service(*replies: Reply | Answering) -> Iterator[ScriptedService]:
    """Start the service on a free port."""
    ended, turns = threading.Event(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def do_DELETE(self) -> None:
            self._reply()

        def log_message(self, *arguments: Any) -> None:
            pass

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with turns:
                service.asked.append((self.path, dict(self.headers.items()), body))
                told = service.replies.pop(0) if len(service.replies) > 1 else service.replies[0]
            reply = told if isinstance(told, Reply) else told(self.path, self.headers, body)
            if reply.hang:
                ended.wait()
                return
            if not (reply.drop and not reply.body):
                self.send_response_only(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                # One byte more than comes, where the connection is to break in the middle.
                self.send_header("Content-Length", str(len(reply.body) + reply.drop))
                self.end_headers()
                self.wfile.write(reply.body)
                self.wfile.flush()
            if reply.drop:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: Any) -> None:
            # Clients may go when they like. What is printed from another thread while a test takes what pytest has
            # captured is lost, and everything around it.
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service = ScriptedService(url=f"http://127.0.0.1:{server.server_address[1]}", replies=list(replies))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
