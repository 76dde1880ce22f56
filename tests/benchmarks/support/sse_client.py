"""Ask over HTTP by hand and read answers event by event: kept connections, and no library that takes the cores.

The same code asks our service and vLLM's; they differ in the path, in the body, and in what an event says.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.benchmarks.support.exchange import request_bytes
from tests.benchmarks.support.load import TIMEOUT
from tests.benchmarks.support.request_file import Asked
from tests.benchmarks.support.traffic import Answer

_DONE = b"[DONE]"


class Dialect(Protocol):
    """How one route is asked, and what its events say."""

    path: str

    def body(self, asked: Asked) -> bytes: ...

    def text(self, event: dict[str, Any]) -> str:
        """The piece of the answer in `event`; raises RuntimeError for an event that says what went wrong."""

    def answer(self, events: list[dict[str, Any]], *, text: str, first: float | None) -> Answer: ...


class SseClient:
    """Keeps connections open, as many as were ever used at once."""

    def __init__(self, url: str, dialect: Dialect) -> None:
        address = urlsplit(url)
        self._address = (address.hostname, address.port)
        self._dialect = dialect
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, asked: Asked) -> Answer:
        """Raises RuntimeError for any answer that is not one, OSError and EOFError for a lost connection."""
        body = self._dialect.body(asked)
        reader, writer = self._waiting() or await asyncio.open_connection(*self._address)
        try:
            writer.write(request_bytes(body, path=self._dialect.path, keep=True))
            async with asyncio.timeout(TIMEOUT):
                answer = await self._read(reader)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _waiting(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """One that the server has not closed: it keeps none for long that nothing comes through."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" not in head:
            raise RuntimeError(await _refusal(reader, head))
        events: list[dict[str, Any]] = []
        text, first = "", None
        async for data in _events(reader):
            event = json.loads(data)
            events.append(event)
            text += self._dialect.text(event)
            if first is None and text.strip():
                first = time.monotonic()
        return self._dialect.answer(events, text=text.strip(), first=first)


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The data of each event but the last, `[DONE]`. Raises RuntimeError when the stream ends without it."""
    pending, done = b"", False
    while size := int(await reader.readline(), 16):
        pending += (await reader.readexactly(size + 2))[:-2]
        *whole, pending = pending.split(b"\n\n")
        for event in whole:
            data = event.removeprefix(b"data: ")
            if data == _DONE:
                done = True
            else:
                yield data
    await reader.readline()
    if not done:
        raise RuntimeError("the stream ended early")


async def _refusal(reader: asyncio.StreamReader, head: bytes) -> str:
    status = head.split()[1].decode()
    length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    body = await reader.readexactly(int(length.partition(b":")[2]))
    try:
        return f"{status} {json.loads(body)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return status
