"""Send the requests of the load and fault programs, and print their tables."""

import asyncio
import base64
import io
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
from PIL import Image

from medmoe.training.evaluation.report.markdown_table import table
from tests.benchmarks.support.exchange import Exchange, request_bytes
from tests.support.service.server_process import ServerProcess

IMAGES = 32
ANSWERED = "200"
REFUSED = "connection refused"
LOST = "no answer"
TIMEOUT = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One request as its client saw it; times on the clock of `time.monotonic`."""

    what: str
    """ANSWERED; a status and a code; `200, then CODE` for a stream that ended with an error event; REFUSED: no
    connection was made; LOST: it ended without an answer and without an error."""
    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


def bodies(*, max_tokens: int, stream: bool = False) -> list[bytes]:
    """Bodies for POST /v1/vqa, each with an image of its own."""
    random = np.random.default_rng(0)
    made = []
    for number in range(IMAGES):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file, format="PNG")
        fields = {
            "image": base64.b64encode(file.getvalue()).decode(),
            "question": f"What is shown in image {number}?",
            "max_tokens": max_tokens,
            "stream": stream,
        }
        made.append(json.dumps(fields).encode())
    return made


class Client:
    """HTTP by hand, a connection for each request: the server needs the cores that a library would take."""

    def __init__(self, server: ServerProcess) -> None:
        self.url = server.url
        address = urlsplit(server.url)
        self._address = (address.hostname, address.port)

    async def ask(self, body: bytes, *, due: float | None = None) -> Outcome:
        """Ask, and read all of the answer; the time counts from `due` where it is given."""
        begun = time.monotonic() if due is None else due
        try:
            what = _what(await self._exchange(body))
        except ConnectionRefusedError:
            what = REFUSED
        except (OSError, TimeoutError):
            what = LOST
        return Outcome(what=what, begun=begun, ended=time.monotonic())

    async def leave_early(self, body: bytes) -> bool:
        """Ask, and hang up after the first event of the stream; False when it was refused instead."""
        async with self._asked(body) as reader, asyncio.timeout(TIMEOUT):
            status = await reader.readline()
            if b" 200 " not in status:
                return False
            await reader.readuntil(b"data: ")
            return True

    async def _exchange(self, body: bytes) -> bytes:
        """All that comes until the connection is closed. Raises OSError, TimeoutError."""
        asked = request_bytes(body)
        transport, exchange = await asyncio.get_running_loop().create_connection(
            lambda: Exchange(asked), *self._address
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                return await exchange.answer
        finally:
            transport.close()

    @asynccontextmanager
    async def _asked(self, body: bytes) -> AsyncIterator[asyncio.StreamReader]:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(request_bytes(body))
            yield reader
        finally:
            writer.close()


def _what(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        # The last event, without unpacking the chunks: none of our events is split over two.
        body = body.rpartition(b"data: ")[2].partition(b"\n")[0]
        if body == b"[DONE]":
            return ANSWERED
    elif b"content-length: %d" % len(body) not in lines:
        return LOST
    status = lines[0].split()[1].decode()
    try:
        document = json.loads(body)
    except ValueError:
        return LOST
    if "error" not in document:
        return ANSWERED if b"transfer-encoding: chunked" not in lines else LOST
    code = document["error"]["code"]
    return f"{status}, then {code}" if status == ANSWERED else f"{status} {code}"


def counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(outcome.what for outcome in outcomes).items()))


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def resident_mib(server: ServerProcess) -> dict[str, float]:
    """Of the server's own process and of all that it has started, MiB."""
    own = psutil.Process(server.process.pid)
    children = 0
    for child in own.children(recursive=True):
        try:
            children += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return {"server": own.memory_info().rss / 2**20, "children": children / 2**20}


async def requests_inside(client: Client) -> dict[str, float]:
    """How many the service counts, and how many the engine does (running and waiting)."""
    found = {"service": 0.0, "engine": 0.0}
    for line in (await asyncio.to_thread(httpx.get, f"{client.url}/metrics")).text.splitlines():
        name, _, value = line.rpartition(" ")
        name = name.partition("{")[0]
        if line.startswith("#"):
            continue
        if name == "medmoe_requests_in_flight":
            found["service"] += float(value)
        elif name.endswith((":num_requests_running", ":num_requests_waiting")):
            found["engine"] += float(value)
    return found


async def closed_loop(client: Client, asked: Sequence[bytes], *, clients: int, until: asyncio.Event) -> list[Outcome]:
    """`clients` that ask one question after another until told to stop; a refusal makes a client wait a moment."""
    outcomes: list[Outcome] = []

    async def one(number: int) -> None:
        while not until.is_set():
            outcome = await client.ask(asked[number % len(asked)])
            outcomes.append(outcome)
            number += clients
            if outcome.what != ANSWERED:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(one(number) for number in range(clients)))
    return outcomes


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """In Markdown; a float gets three digits, what is counted by name is spelt out."""
    names = list(rows[0])
    print(table(names, ([_cell(row[name]) for name in names] for row in rows)))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_cell(count)}" for name, count in value.items()) or "none"
    return str(value)
