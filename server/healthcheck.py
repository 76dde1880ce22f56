"""Ask the service of this container whether it is ready: `python -m medmoe.server.healthcheck`, or `... live`.

It asks by https where the service has a certificate, which it does not verify, because the certificate names the
service and not this address. Where clients need certificates of their own it asks at MEDMOE_ADMIN_SOCKET. It imports
nothing of the service, so that it takes a fraction of a second.
"""

import http.client
import json
import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence

_SECONDS = 4.0
_OK = 200
_ALIVE = {"ready": ("ready",), "live": ("starting", "ready", "restarting", "draining")}
"""Statuses of the admin socket that mean yes."""


class _AdminConnection(http.client.HTTPConnection):
    """A connection to the admin socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        """See HTTPConnection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


def is_healthy(question: str, environment: Mapping[str, str]) -> bool:
    """Return whether the service of these MEDMOE_* variables is `ready` or `live`."""
    port = int(environment.get("MEDMOE_PORT") or 8000)
    try:
        if environment.get("MEDMOE_TLS_CLIENT_CA"):
            connection: http.client.HTTPConnection = _AdminConnection(environment["MEDMOE_ADMIN_SOCKET"])
            return json.loads(_body(connection, "/admin/status"))["status"] in _ALIVE[question]
        if environment.get("MEDMOE_TLS_CERTIFICATE"):
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_SECONDS, context=_unverified())
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        _body(connection, f"/health/{question}")
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return False
    return True


def _body(connection: http.client.HTTPConnection, path: str) -> bytes:
    """Return the body of a response of status 200. Raises ValueError for another status."""
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != _OK:
            raise ValueError("another status")
        return response.read()
    finally:
        connection.close()


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 for yes, 1 for no, 2 for a question that is not known."""
    question = arguments[0] if arguments else "ready"
    if question not in _ALIVE:
        sys.stderr.write(f"error: ask for one of {', '.join(_ALIVE)}\n")
        return 2
    return 0 if is_healthy(question, os.environ) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
