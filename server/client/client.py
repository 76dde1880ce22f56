"""The blocking client. What it sends and reads is in medmoe.client.call, shared with the other one."""

import time
from collections.abc import Callable, Generator, Sequence
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


class Client:
    """One service. May be shared by threads; closed by `close` or as a context manager.

    Every method raises ClientError, one of its subclasses (medmoe.client.errors), and TypeError for an option
    that there is not or a picture that is none.
    """

    def __init__(
        self,
        url: str = LOCAL,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        retry: Retry = DEFAULT,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`api_key` None takes MEDMOE_API_KEY. `timeout` is for a whole call: attempts, pauses, and a stream's events;
        it is looked at whenever something arrives, so that a trickling answer may pass it once over.

        Raises ValueError for an address or a key that cannot be one.
        """
        self._address = Address.of(url, api_key=api_key)
        self._timeout = timeout
        self._retry = retry
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self._address.url,
            headers=self._address.headers,
            transport=transport,
            # As many as there are threads.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r})"

    def ask(self, image: Source, question: str, **options: Unpack[AskOptions]) -> VqaAnswer:
        """Answer a question about a picture."""
        return self._send(calls.ask(image, question, options))

    def stream(self, image: Source, question: str, **options: Unpack[AskOptions]) -> Generator[Event, None, None]:
        """The same answer piece by piece, then whole. What fails before the first piece is tried again.

        Closing the generator abandons the question.
        """
        response, attempts = self._answered(calls.ask(image, question, options, stream=True), stream=True)
        reader = EventReader()
        try:
            with translated(self._address.url):
                for chunk in response.iter_bytes():
                    attempts.seconds()
                    yield from reader.feed(chunk)
            reader.end()
        finally:
            response.close()

    @overload
    def classify(
        self,
        image: Source,
        labels: Sequence[str],
        *,
        mode: Literal["likelihood"] = "likelihood",
        **options: Unpack[ClassifyOptions],
    ) -> Classification: ...
    @overload
    def classify(
        self, image: Source, labels: Sequence[str], *, mode: Literal["choice"], **options: Unpack[ClassifyOptions]
    ) -> ChoiceClassification: ...
    @overload
    def classify(
        self, image: Source, labels: Sequence[str], *, mode: Literal["multi_label"], **options: Unpack[ClassifyOptions]
    ) -> MultiLabelClassification: ...
    @overload
    def classify(
        self, image: Source, labels: Sequence[str], *, mode: Mode, **options: Unpack[ClassifyOptions]
    ) -> AnyClassification: ...
    def classify(
        self, image: Source, labels: Sequence[str], *, mode: Mode = "likelihood", **options: Unpack[ClassifyOptions]
    ) -> AnyClassification:
        """How likely the model finds each label."""
        return self._send(calls.classify(image, labels, options, mode=mode))

    def router_stats(self, *, window: int | None = None) -> RouterStats:
        """Where the tokens went, of the last `window` seconds or since the start."""
        return self._send(calls.router_stats(window))

    def metadata(self) -> Metadata:
        """What is served, by what."""
        return self._send(calls.METADATA)

    def model_card(self) -> str:
        """The checkpoint's own, Markdown."""
        return self._send(calls.MODEL_CARD)

    def models(self) -> ModelList:
        """A list of one."""
        return self._send(calls.MODELS)

    def ready(self) -> Health:
        """Returns once the service answers questions, or raises when it does not within the attempts."""
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

    def _send(self, call: Call[Answer]) -> Answer:
        response, _ = self._answered(call)
        return call.read(response)

    def _answered(self, call: Call[Answer], *, stream: bool = False) -> tuple[httpx.Response, Attempts]:
        """A success, of which a stream is still to be read, and what is left of the time."""
        attempts = Attempts(self._retry, seconds=self._timeout)
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
                pause = attempts.pause(error)
            self._sleep(pause)
