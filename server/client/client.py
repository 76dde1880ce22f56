"""Define the blocking client."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
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


class Client(BaseClient):
    """Ask one service. Threads may share a client; close it with `close` or use it as a context manager.

    Every method raises a subclass of ClientError (medmoe.client.errors), and TypeError for an unknown option or image
    type.
    """

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
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`url` None reads MEDMOE_URL, `api_key` None reads MEDMOE_API_KEY. A Path is a file with the key,
        read for each request, so that a rotation or a new token counts without a new client.

        `ca_file` None reads MEDMOE_CA_FILE, the authorities to trust instead of the usual ones; `client_certificate`
        and `client_key` None read MEDMOE_CLIENT_CERTIFICATE and MEDMOE_CLIENT_KEY; all are PEM files.
        `timeout` is in seconds and covers a whole call: attempts, pauses and a stream's events. It is checked whenever
        data arrive, so a slow answer may exceed it once. Raises ValueError for an invalid address, key or file.
        """
        super().__init__(url, api_key=api_key, timeout=timeout, retry=retry)
        self._sleep = sleep
        tls = tls_context(ca_file=ca_file, client_certificate=client_certificate, client_key=client_key)
        if transport is None and self._address.is_local:
            transport = httpx.HTTPTransport(verify=tls, limits=LIMITS)
        with usable_proxies():
            self._http = httpx.Client(
                base_url=self._address.url,
                headers=self._address.headers,
                auth=self._auth,
                verify=tls,
                transport=transport,
                limits=LIMITS,
            )

    def ask(self, image: ImageSource, question: str, **options: Unpack[AskOptions]) -> answers.VqaAnswer:
        """Answer a question about an image."""
        return self._send(calls.ask(image, question, options))

    def stream(self, image: ImageSource, question: str, **options: Unpack[AskOptions]) -> Generator[Event, None, None]:
        """Yield the answer piece by piece, then whole. Only failures before the first piece are retried.

        Closing the generator cancels the request.
        """
        yield from self._events(calls.ask(image, question, options, stream=True), EventReader(answer_event))

    @overload
    def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        mode: Literal["likelihood"] = "likelihood",
        **options: Unpack[ClassifyOptions],
    ) -> answers.Classification: ...
    @overload
    def classify(
        self, image: ImageSource, labels: Sequence[str], *, mode: Literal["choice"], **options: Unpack[ClassifyOptions]
    ) -> answers.ChoiceClassification: ...
    @overload
    def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        mode: Literal["multi_label"],
        **options: Unpack[ClassifyOptions],
    ) -> answers.MultiLabelClassification: ...
    @overload
    def classify(
        self, image: ImageSource, labels: Sequence[str], *, mode: Mode, **options: Unpack[ClassifyOptions]
    ) -> AnyClassification: ...
    def classify(
        self,
        image: ImageSource,
        labels: Sequence[str],
        *,
        mode: Mode = "likelihood",
        **options: Unpack[ClassifyOptions],
    ) -> AnyClassification:
        """Return the probability of each label."""
        return self._send(calls.classify(image, labels, options, mode=mode))

    def explain(
        self,
        image: ImageSource,
        question: str | None = None,
        *,
        labels: Sequence[str] | None = None,
        **options: Unpack[ExplainOptions],
    ) -> answers.Explanation:
        """Map where in the image the answer to a question, or one of `labels`, comes from."""
        return self._send(calls.explain(image, question, labels, options))

    def render(self, image: ImageSource, **options: Unpack[RenderOptions]) -> answers.RenderedImage:
        """Return a DICOM frame or any other image as PNG, with the window that was applied."""
        return self._send(calls.render(image, options))

    def decisions(
        self, image: Source, questions: Sequence[Question], **options: Unpack[DecisionOptions]
    ) -> answers.Decision:
        """Return the probabilities of the answers to several closed questions about one image."""
        return self._send(calls.decisions(image, questions, options))

    def ask_series(
        self, series: SeriesSource, question: str, **options: Unpack[AskSeriesOptions]
    ) -> answers.SeriesAnswer:
        """Answer a question about a series: a folder, a ZIP archive, a multi-frame file, files, or a `Series`."""
        return self._send(calls.ask_series(series, question, options))

    def classify_series(
        self,
        series: SeriesSource,
        labels: Sequence[str],
        *,
        mode: Mode = "likelihood",
        **options: Unpack[ClassifySeriesOptions],
    ) -> answers.SeriesClassification:
        """Return the probability of each label over a series."""
        return self._send(calls.classify_series(series, labels, options, mode=mode))

    def stream_ask_series(
        self, series: SeriesSource, question: str, **options: Unpack[AskSeriesOptions]
    ) -> Generator[answers.SeriesEvent, None, None]:
        """Yield what was made of the series, each slice when it is answered, then the result, as `stream` does."""
        call = calls.ask_series(series, question, options, stream=True)
        yield from self._events(call, EventReader(series_event))

    def stream_classify_series(
        self,
        series: SeriesSource,
        labels: Sequence[str],
        *,
        mode: Mode = "likelihood",
        **options: Unpack[ClassifySeriesOptions],
    ) -> Generator[answers.SeriesEvent, None, None]:
        """Yield the events of a classification, as `stream_ask_series` does."""
        call = calls.classify_series(series, labels, options, mode=mode, stream=True)
        yield from self._events(call, EventReader(series_event))

    def router_stats(self, *, window: int | None = None) -> answers.RouterStats:
        """Return the expert loads of the last `window` seconds, or since the start."""
        return self._send(calls.router_stats(window))

    def sources(self) -> tuple[answers.SourceInfo, ...]:
        """List the DICOMweb sources whose images an `Instance` may name."""
        return self._send(calls.SOURCES).data

    def studies(
        self, source: str, *, modality: str | None = None, date: str | None = None, limit: int | None = None
    ) -> tuple[answers.StudyInfo, ...]:
        """List studies of a source; `date` is YYYYMMDD or a range with a hyphen."""
        return self._send(calls.studies(source, modality=modality, date=date, limit=limit)).data

    def series(self, source: str, study: str, *, limit: int | None = None) -> tuple[answers.SeriesInfo, ...]:
        """List the series of a study."""
        return self._send(calls.series(source, study, limit=limit)).data

    def instances(
        self, source: str, study: str, series: str, *, limit: int | None = None
    ) -> tuple[answers.InstanceInfo, ...]:
        """List the instances of a series."""
        return self._send(calls.instances(source, study, series, limit=limit)).data

    def metadata(self) -> answers.Metadata:
        """Describe the served checkpoint and its engine."""
        return self._send(calls.METADATA)

    def model_card(self) -> str:
        """Return the checkpoint's model card, as Markdown."""
        return self._send(calls.MODEL_CARD)

    def models(self) -> answers.ModelList:
        """List the served models, the active one first."""
        return self._send(calls.MODELS)

    def checkpoint_status(self) -> answers.CheckpointStatus:
        """Return the active checkpoint and the one beside it; this and the next four need the scope admin."""
        return self._send(calls.CHECKPOINT_STATUS)

    def load_checkpoint(
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
        return self._send(call)

    def activate_checkpoint(self) -> answers.CheckpointStatus:
        """Send new requests to the loaded checkpoint."""
        return self._send(calls.ACTIVATE)

    def rollback_checkpoint(self) -> answers.CheckpointStatus:
        """Send new requests to the checkpoint that was active before."""
        return self._send(calls.ROLLBACK)

    def unload_checkpoint(self) -> answers.CheckpointStatus:
        """End the checkpoint beside the active one; return when its memory is free."""
        return self._send(calls.UNLOAD)

    def ready(self) -> answers.Health:
        """Wait until the service answers questions. Raises ClientError if the attempts are used up before."""
        return self._send(calls.READY)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _events(self, call: Call[Any], reader: EventReader[AnyEvent]) -> Generator[AnyEvent, None, None]:
        response, attempts = self._answered(call, stream=True)
        try:
            with translated(self._address.url):
                for chunk in response.iter_bytes():
                    attempts.seconds()
                    yield from reader.feed(chunk)
            reader.end()
        finally:
            response.close()

    def _send(self, call: Call[Answer]) -> Answer:
        response, _ = self._answered(call)
        return call.read(response)

    def _answered(self, call: Call[Answer], *, stream: bool = False) -> tuple[httpx.Response, Attempts]:
        """Return a successful response, unread if it is a stream, and the attempts with the time that is left."""
        attempts = self._attempts()
        while True:
            try:
                with translated(self._address.url):
                    request = call.request(self._http, seconds=attempts.seconds())
                    response = self._http.send(request, stream=stream)
                    if not response.is_success:
                        response.read()
                check(response)
                return response, attempts
            except ClientError as error:
                pause = attempts.pause(error, idempotent=call.idempotent)
            self._sleep(pause)
