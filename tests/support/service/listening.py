"""Run the app behind the edge on a socket, and exchange raw bytes with it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from medmoe.server.__main__ import server_config
from medmoe.server.edge.limits import ConnectionLimits
from medmoe.server.edge.tls import ServerTLS

OWN = {"date", "x-request-id", "server-timing", "traceresponse"}
"""Headers that differ from one answer to the next."""
_SEND_BUFFER = 64 * 1024
LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])

    def common(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """All but what is this answer's own."""
        error = json.loads(self.body)["error"]
        assert error.pop("request_id") == self.headers["x-request-id"]
        return self.status, {name: value for name, value in self.headers.items() if name not in OWN}, error


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, *, informed: bool = False) -> Answer:
        """Return the next response; `informed` passes over interim ones."""
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            while informed and head.startswith("HTTP/1.1 1"):
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status=int(first.split()[1]), headers=headers, body=body)

    async def ended(self) -> bool:
        """That nothing comes any more, and the connection is closed, not broken."""
        async with asyncio.timeout(60):
            return await self.reader.read() == b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listening:
    service: Any
    """A Service of tests/integration/conftest.py."""
    port: int

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Connection(reader=reader, writer=writer)
        finally:
            writer.close()

    async def ask(self, data: bytes) -> Answer:
        async with self.connected() as connection:
            connection.writer.write(data)
            return await connection.answer()


Listen = Callable[..., AbstractAsyncContextManager[Listening]]


def post(*headers: str, path: str = "/v1/vqa", body: bytes = b"{}", length: int | None = None) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body) if length is None else length}", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body


@asynccontextmanager
async def served(app: FastAPI, *, patience: int, limits: ConnectionLimits | None) -> AsyncIterator[int]:
    """Serve `app` on a free port, which it yields; `patience` is the keep-alive time in seconds.

    The kernel keeps little of a response that nobody reads.
    """
    settings = app.state.medmoe.settings.model_copy(update={"port": 0})
    config = server_config(app, settings, tls=ServerTLS.of(settings), limits=limits)
    config.lifespan, config.timeout_keep_alive = "off", patience
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
