"""The client for asyncio. What it sends and reads is in medmoe.client.call, shared with the other one."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack, overload

import httpx

from medmoe.client import call as calls
from medmoe.client.answers.classify import (
    AnyClassification,
    ChoiceClassification,
    Classification,
    Mode,
    MultiLabelClassification,
)
from medmoe.client.answers.metadata import Health, Metadata, ModelList
from medmoe.client.answers.router_stats import RouterStats
from medmoe.client.answers.vqa import VqaAnswer
from medmoe.client.call import Call
from medmoe.client.errors import ClientError
from medmoe.client.images.image import Source
from medmoe.client.options import AskOptions, ClassifyOptions
from medmoe.client.transport.address import LOCAL, Address
from medmoe.client.transport.error_body import check
from medmoe.client.transport.event_reader import Event, EventReader
from medmoe.client.transport.retry import DEFAULT, Attempts, Retry
from medmoe.client.transport.transport_errors import translated

Answer = TypeVar("Answer")


class AsyncClient:
    """As `Client`, method by method, for one event loop. Pictures are read and encoded in threads."""

    def __init__(
        self,
        url: str = LOCAL,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        retry: Retry = DEFAULT,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """As `Client`, with a `timeout` that is kept to the second. Raises ValueError."""
        self._address = Address.of(url, api_key=api_key)
        self._timeout = timeout
        self._retry = retry
        self._sleep = sleep
        self._http = httpx.AsyncClient(
            base_url=self._address.url,
            headers=self._address.headers,
            transport=transport,
            # How much is asked at a time is the caller's choice.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r})"

    async def ask(self, image: Source, question: str, **options: Unpack[AskOptions]) -> VqaAnswer:
        """Answer a question about a picture."""
        return await self._send(await asyncio.to_thread(calls.ask, image, question, options))

    async def stream(self, image: Source, question: str, **options: Unpack[AskOptions]) -> AsyncGenerator[Event, None]:
        """The same answer piece by piece, then whole; close it (`contextlib.aclosing`) to abandon the question."""
        call = await asyncio.to_thread(calls.ask, image, question, options, stream=True)
        response, attempts = await self._answered(call, stream=True)
        reader = EventReader()
        chunks = response.aiter_bytes()
        try:
            while True:
                # Not around the whole loop: a timeout must not span a yield.
                with translated(self._address.url):
                    async with asyncio.timeout(attempts.seconds()):
                        chunk = await anext(chunks, None)
                if chunk is None:
                    break
                for event in reader.feed(chunk):
                    yield event
            reader.end()
        finally:
            await response.aclose()

    @overload
    async def classify(
        self,
        image: Source,
        labels: Sequence[str],
        *,
        mode: Literal["likelihood"] = "likelihood",
        **options: Unpack[ClassifyOptions],
    ) -> Classification: ...
    @overload
    async def classify(
        self, image: Source, labels: Sequence[str], *, mode: Literal["choice"], **options: Unpack[ClassifyOptions]
    ) -> ChoiceClassification: ...
    @overload
    async def classify(
        self, image: Source, labels: Sequence[str], *, mode: Literal["multi_label"], **options: Unpack[ClassifyOptions]
    ) -> MultiLabelClassification: ...
    @overload
    async def classify(
        self, image: Source, labels: Sequence[str], *, mode: Mode, **options: Unpack[ClassifyOptions]
    ) -> AnyClassification: ...
    async def classify(
        self, image: Source, labels: Sequence[str], *, mode: Mode = "likelihood", **options: Unpack[ClassifyOptions]
    ) -> AnyClassification:
        """How likely the model finds each label."""
        return await self._send(await asyncio.to_thread(calls.classify, image, labels, options, mode=mode))

    async def router_stats(self, *, window: int | None = None) -> RouterStats:
        """Where the tokens went, of the last `window` seconds or since the start."""
        return await self._send(calls.router_stats(window))

    async def metadata(self) -> Metadata:
        """What is served, by what."""
        return await self._send(calls.METADATA)

    async def model_card(self) -> str:
        """The checkpoint's own, Markdown."""
        return await self._send(calls.MODEL_CARD)

    async def models(self) -> ModelList:
        """A list of one."""
        return await self._send(calls.MODELS)

    async def ready(self) -> Health:
        """Returns once the service answers questions, or raises when it does not within the attempts."""
        return await self._send(calls.READY)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: Call[Answer]) -> Answer:
        response, _ = await self._answered(call)
        return call.read(response)

    async def _answered(self, call: Call[Answer], *, stream: bool = False) -> tuple[httpx.Response, Attempts]:
        """A success, of which a stream is still to be read, and what is left of the time."""
        attempts = Attempts(self._retry, seconds=self._timeout)
        while True:
            try:
                with translated(self._address.url):
                    request = call.request(self._http, seconds=attempts.seconds())
                    async with asyncio.timeout(attempts.seconds()):
                        response = await self._http.send(request, stream=stream)
                        if not response.is_success:
                            await response.aread()
                check(response)
                return response, attempts
            except ClientError as error:
                pause = attempts.pause(error)
            await self._sleep(pause)
