"""Send a request of a batch to the app itself, through every check and every record that other requests go through."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json
from starlette.types import ASGIApp, Message

from medmoe.server.observability.request_record import BatchLine


@dataclass(kw_only=True, slots=True)
class AppResponse:
    """Response of the app."""

    status: int = 0
    request_id: str = ""
    body: bytearray = field(default_factory=bytearray)

    @property
    def error_code(self) -> str | None:
        """Return the code of an error body; None for another."""
        error = from_json(bytes(self.body)).get("error")
        return error.get("code") if isinstance(error, dict) else None


async def post(app: ASGIApp, path: str, body: dict[str, Any], *, line: BatchLine, gone: asyncio.Event) -> AppResponse:
    """Return the answer to a JSON request; setting `gone` ends it as a client's leaving does."""
    content = to_json(body)
    response = AppResponse()
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status = message["status"]
            headers = dict(message["headers"])
            response.request_id = headers.get(b"x-request-id", b"").decode()
        else:
            response.body += message.get("body", b"")

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))],
        "client": None,
        "server": None,
    }
    line.attach(scope)
    await app(scope, receive, send)
    return response
