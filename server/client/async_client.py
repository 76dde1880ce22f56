"""Define the client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import httpx

from medmoe.client import answers
from medmoe.client import call as calls
from medmoe.client.answers import AnyClassification, Mode
from medmoe.client.base_client import LIMITS, BaseClient
from medmoe.client.call import Call, ImageSource
from medmoe.client.errors import ClientError
from medmoe.client.images.image import Source
from medmoe.client.images.series import SeriesSource
from medmoe.client.options import (
    AskOptions,
    AskSeriesOptions,
    ClassifyOptions,
    ClassifySeriesOptions,
    DecisionOptions,
    ExplainOptions,
    RenderOptions,
)
from medmoe.client.questions import Question
from medmoe.client.transport.error_body import check
from medmoe.client.transport.event_reader import AnyEvent, Event, EventReader, answer_event, series_event
from medmoe.client.transport.proxy import usable_proxies
from medmoe.client.transport.retry import DEFAULT, Attempts, Retry
from medmoe.client.transport.tls import tls_context
from medmoe.client.transport.transport_errors import translated

Answer = TypeVar("Answer")


class AsyncClient(BaseClient):
    """Ask one service from one event loop, with the methods of `Client`. Threads read and encode images."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | Path | None = None,
        ca_file: str | Path | None = None,
        client_certificate: str | Path | None = None,
        client_key: str | Path | None = None,
        timeout: float = 120.0,
        retry: Retry = DEFAULT,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the arguments of `Client`, with an exact `timeout`. Raises ValueError."""
        super().__init__(url, api_key=api_key, timeout=timeout, retry=retry)
        self._sleep = sleep
        tls = tls_context(ca_file=ca_file, client_certificate=client_certificate, client_key=client_key)
        if transport is None and self._address.is_local:
            transport = httpx.AsyncHTTPTransport(verify=tls, limits=LIMITS)
        with usable_proxies():
            self._http = httpx.AsyncClient(
                base_url=self._address.url,
                headers=self._address.headers,
                auth=self._auth,
                verify=tls,
                transport=transport,
                limits=LIMITS,
            )

    async def ask(self, image: ImageSource, question: str, **options: Unpack[AskOptions]) -> answers.VqaAnswer:
        """Answer a question about an image."""
        return await self._send(await asyncio.to_thread(calls.ask, image, question, options))

    async def stream(
        self, image: ImageSource, question: str, **options: Unpack[AskOptions]
    ) -> AsyncGenerator[Event, None]:
        """Yield the answer piece by piece, then whole; close it (`contextlib.aclosing`) to cancel the request."""
        call = await asyncio.to_thread(calls.ask, image, question, options, stream=True)
        async with aclosing(self._events(call, EventReader(answer_event))) as events:
            async for event in events:
                yield event

    @overload
    async def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        mode: Literal["likelihood"] = "likelihood",
        **options: Unpack[ClassifyOptions],
    ) -> answers.Classification: ...
    @overload
    async def classify(
        self, image: ImageSource, labels: Sequence[str], *, mode: Literal["choice"], **options: Unpack[ClassifyOptions]
    ) -> answers.ChoiceClassification: ...
    @overload
    async def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        mode: Literal["multi_label"],
        **options: Unpack[ClassifyOptions],
    ) -> answers.MultiLabelClassification: ...
    @overload
    async def classify(
        self, image: ImageSource, labels: Sequence[str], *, mode: Mode, **options: Unpack[ClassifyOptions]
    ) -> AnyClassification: ...
    async def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        mode: Mode = "likelihood",
        **options: Unpack[ClassifyOptions],
    ) -> AnyClassification:
        """Return the probability of each label."""
        return await self._send(await asyncio.to_thread(calls.classify, image, labels, options, mode=mode))

    async def explain(
        self,
        image: ImageSource,
        question: str | None = None,
        *,
        labels: Sequence[str] | None = None,
        **options: Unpack[ExplainOptions],
    ) -> answers.Explanation:
        """Map where in the image the answer to a question, or one of `labels`, comes from."""
        return await self._send(await asyncio.to_thread(calls.explain, image, question, labels, options))

    async def render(self, image: ImageSource, **options: Unpack[RenderOptions]) -> answers.RenderedImage:
        """Return a DICOM frame or any other image as PNG, with the window that was applied."""
        return await self._send(await asyncio.to_thread(calls.render, image, options))

    async def decisions(
        self, image: Source, questions: Sequence[Question], **options: Unpack[DecisionOptions]
    ) -> answers.Decision:
        """Return the probabilities of the answers to several closed questions about one image."""
        return await self._send(await asyncio.to_thread(calls.decisions, image, questions, options))

    async def ask_series(
        self, series: SeriesSource, question: str, **options: Unpack[AskSeriesOptions]
    ) -> answers.SeriesAnswer:
        """Answer a question about a series: a folder, a ZIP archive, a multi-frame file, files, or a `Series`."""
        return await self._send(await asyncio.to_thread(calls.ask_series, series, question, options))

    async def classify_series(
        self,
        series: SeriesSource,
        labels: Sequence[str],
        *,
        mode: Mode = "likelihood",
        **options: Unpack[ClassifySeriesOptions],
    ) -> answers.SeriesClassification:
        """Return the probability of each label over a series."""
        return await self._send(await asyncio.to_thread(calls.classify_series, series, labels, options, mode=mode))

    async def stream_ask_series(
        self, series: SeriesSource, question: str, **options: Unpack[AskSeriesOptions]
    ) -> AsyncGenerator[answers.SeriesEvent, None]:
        """Yield what was made of the series, each slice when it is answered, then the result, as `stream` does."""
        call = await asyncio.to_thread(calls.ask_series, series, question, options, stream=True)
        async with aclosing(self._events(call, EventReader(series_event))) as events:
            async for event in events:
                yield event

    async def stream_classify_series(
        self,
        series: SeriesSource,
        labels: Sequence[str],
        *,
        mode: Mode = "likelihood",
        **options: Unpack[ClassifySeriesOptions],
    ) -> AsyncGenerator[answers.SeriesEvent, None]:
        """Yield the events of a classification, as `stream_ask_series` does."""
        call = await asyncio.to_thread(calls.classify_series, series, labels, options, mode=mode, stream=True)
        async with aclosing(self._events(call, EventReader(series_event))) as events:
            async for event in events:
                yield event

    async def router_stats(self, *, window: int | None = None) -> answers.RouterStats:
        """Return the expert loads of the last `window` seconds, or since the start."""
        return await self._send(calls.router_stats(window))

    async def sources(self) -> tuple[answers.SourceInfo, ...]:
        """List the DICOMweb sources whose images an `Instance` may name."""
        return (await self._send(calls.SOURCES)).data

    async def studies(
        self, source: str, *, modality: str | None = None, date: str | None = None, limit: int | None = None
    ) -> tuple[answers.StudyInfo, ...]:
        """List studies of a source; `date` is YYYYMMDD or a range with a hyphen."""
        return (await self._send(calls.studies(source, modality=modality, date=date, limit=limit))).data

    async def series(self, source: str, study: str, *, limit: int | None = None) -> tuple[answers.SeriesInfo, ...]:
        """List the series of a study."""
        return (await self._send(calls.series(source, study, limit=limit))).data

    async def instances(
        self, source: str, study: str, series: str, *, limit: int | None = None
    ) -> tuple[answers.InstanceInfo, ...]:
        """List the instances of a series."""
        return (await self._send(calls.instances(source, study, series, limit=limit))).data

    async def metadata(self) -> answers.Metadata:
        """Describe the served checkpoint and its engine."""
        return await self._send(calls.METADATA)

    async def model_card(self) -> str:
        """Return the checkpoint's model card, as Markdown."""
        return await self._send(calls.MODEL_CARD)

    async def models(self) -> answers.ModelList:
        """List the served models, the active one first."""
        return await self._send(calls.MODELS)

    async def checkpoint_status(self) -> answers.CheckpointStatus:
        """Return the active checkpoint and the one beside it; this and the next four need the scope admin."""
        return await self._send(calls.CHECKPOINT_STATUS)

    async def load_checkpoint(
        self,
        name: str,
        *,
        questions: str | Sequence[Mapping[str, Any]] | None = None,
        activate: bool = False,
        min_agreement: float | None = None,
    ) -> answers.CheckpointStatus:
        """Begin to load a checkpoint of the service's directory. `questions` are bodies of `/v1/vqa` and `/v1/classify`
        that both are asked, or the name of a file there."""
        call = calls.load_checkpoint(name, questions, activate=activate, min_agreement=min_agreement)
        return await self._send(call)

    async def activate_checkpoint(self) -> answers.CheckpointStatus:
        """Send new requests to the loaded checkpoint."""
        return await self._send(calls.ACTIVATE)

    async def rollback_checkpoint(self) -> answers.CheckpointStatus:
        """Send new requests to the checkpoint that was active before."""
        return await self._send(calls.ROLLBACK)

    async def unload_checkpoint(self) -> answers.CheckpointStatus:
        """End the checkpoint beside the active one; return when its memory is free."""
        return await self._send(calls.UNLOAD)

    async def ready(self) -> answers.Health:
        """Wait until the service answers questions. Raises ClientError if the attempts are used up before."""
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

    async def _events(self, call: Call[Any], reader: EventReader[AnyEvent]) -> AsyncGenerator[AnyEvent, None]:
        response, attempts = await self._answered(call, stream=True)
        chunks = response.aiter_bytes()
        try:
            while True:
                # A timeout around the whole loop would span a yield.
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

    async def _send(self, call: Call[Answer]) -> Answer:
        response, _ = await self._answered(call)
        return call.read(response)

    async def _answered(self, call: Call[Answer], *, stream: bool = False) -> tuple[httpx.Response, Attempts]:
        """Return a successful response, unread if it is a stream, and the attempts with the time that is left."""
        attempts = self._attempts()
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
                pause = attempts.pause(error, idempotent=call.idempotent)
            await self._sleep(pause)
