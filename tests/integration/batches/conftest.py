"""Files, lines and results of batches, as OpenAI's client sees them."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from medmoe.server.admission import background_turns
from medmoe.server.batches import worker
from tests.integration.conftest import Service, ServiceFactory, base64_image

ENDED = ("completed", "failed", "expired", "cancelled")


def line(custom_id: str, body: Mapping[str, Any], url: str = "/v1/vqa") -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def questions(count: int) -> list[str]:
    """Lines with the ids 0, 1, ...; each tenth names no image."""
    image = base64_image()
    bodies = ({"image": "?" if n % 10 == 9 else image, "question": f"Is it {n}?"} for n in range(count))
    return [line(str(n), body) for n, body in enumerate(bodies)]


def results(text: str) -> list[dict[str, Any]]:
    return [json.loads(one) for one in text.splitlines()]


def ids(*parts: Iterable[Mapping[str, Any]]) -> Counter[str]:
    return Counter(one["custom_id"] for part in parts for one in part)


class Caller:
    """One API key's client."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self.client = client
        self.files, self.batches = client.files, client.batches

    async def upload(self, lines: Iterable[str]) -> str:
        file = await self.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
        return file.id

    async def begin(self, lines: Iterable[str], endpoint: str = "/v1/vqa") -> Batch:
        return await self.begin_with(await self.upload(lines), endpoint)

    async def begin_with(self, file_id: str, endpoint: str = "/v1/vqa") -> Batch:
        # Its types know OpenAI's own routes alone.
        named: Any = endpoint
        return await self.batches.create(input_file_id=file_id, endpoint=named, completion_window="24h")

    async def end(self, batch: Batch) -> Batch:
        return await self.until(batch, lambda now: now.status in ENDED)

    async def until(self, batch: Batch, condition: Callable[[Batch], bool]) -> Batch:
        async with asyncio.timeout(60):
            while not condition(batch):
                await asyncio.sleep(0.01)
                batch = await self.batches.retrieve(batch.id)
        return batch

    async def read(self, file_id: str | None) -> list[dict[str, Any]]:
        return results((await self.files.content(file_id)).text) if file_id else []

    async def both(self, batch: Batch) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return await self.read(batch.output_file_id), await self.read(batch.error_file_id)


def caller(service: Service, key: str = "unused") -> Caller:
    return Caller(
        openai.AsyncOpenAI(base_url="http://service/v1", api_key=key, http_client=service.client, max_retries=0)
    )


Batching = Callable[..., AbstractAsyncContextManager[tuple[Service, Caller]]]


@pytest.fixture
def batching(running: ServiceFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batching:
    """`async with batching() as (service, caller):`, with any setting; pauses and retries are short."""
    monkeypatch.setattr(worker, "_ROOM", 0.02)
    monkeypatch.setattr(worker, "_AGAIN", 0.02)
    monkeypatch.setattr(background_turns, "_QUIET", 0.2)

    @asynccontextmanager
    async def factory(**settings: Any) -> AsyncIterator[tuple[Service, Caller]]:
        async with running(**{"batch_dir": tmp_path / "batches"} | settings) as service:
            yield service, caller(service)

    return factory
