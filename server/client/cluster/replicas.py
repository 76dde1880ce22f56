"""Ask several replicas of a service as one."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from medmoe.client.answers import AnyClassification, Mode, VqaAnswer
from medmoe.client.async_client import AsyncClient
from medmoe.client.call import ImageSource
from medmoe.client.options import AskOptions, ClassifyOptions

Answer = TypeVar("Answer")


class Replicas:
    """Send each request to the replica with the fewest open ones, so that a slow or absent one gets few."""

    def __init__(self, clients: Sequence[AsyncClient]) -> None:
        self._clients = clients
        self._open: Counter[int] = Counter()

    async def ask(self, image: ImageSource, question: str, **options: Unpack[AskOptions]) -> VqaAnswer:
        """See AsyncClient.ask."""
        return await self._on_one(lambda client: client.ask(image, question, **options))

    async def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        mode: Mode = "likelihood",
        **options: Unpack[ClassifyOptions],
    ) -> AnyClassification:
        """See AsyncClient.classify."""
        return await self._on_one(lambda client: client.classify(image, labels, mode=mode, **options))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))

    async def _on_one(self, request: Callable[[AsyncClient], Awaitable[Answer]]) -> Answer:
        number = min(range(len(self._clients)), key=lambda one: self._open[one])
        self._open[number] += 1
        try:
            return await request(self._clients[number])
        finally:
            self._open[number] -= 1
