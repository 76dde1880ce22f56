"""Predict with a running service, so that what is measured is what is served.

Image files are sent as they are: decoding and preprocessing are the service's.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medmoe.client.answers import Classification, Routing, VqaAnswer
from medmoe.client.async_client import AsyncClient
from medmoe.client.commands.connection import api_key, reported, usage_errors
from medmoe.client.errors import ClientError, InvalidInput
from medmoe.client.options import ImageOptions
from medmoe.client.transport.retry import Retry
from medmoe.model.errors import MedMoEError
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Predict, Prediction, PromptRouting, of_labels

_PATIENT = Retry(attempts=20, first_pause=1.0, longest_pause=120.0)
_SECONDS = 1800.0
"""Time for each sample, including retries."""
# A blanked image, the control of an evaluation, has one shade.
_OPTIONS: ImageOptions = {"include_routing": True, "allow_uniform": True}


class ServicePredictionError(MedMoEError):
    """The service did not answer a sample, or changed its checkpoint during the evaluation."""


class ServerPredictor:
    """Ask `/v1/vqa` and `/v1/classify`, a few requests at a time."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        max_tokens: int = 32,
        concurrency: int = 8,
        contextual_calibration: bool = False,
    ) -> None:
        self._client = client
        self._max_tokens = max_tokens
        self._contextual_calibration = contextual_calibration
        self._concurrency = concurrency
        self._answered_by: dict[str, str | None] = {}
        self._calibrated = False

    @property
    def identity(self) -> dict[str, str | None]:
        """Return `model` and `weights_sha256` as the service stated them, and whose the confidences are."""
        return self._answered_by | {"confidences": "calibrated by the service" if self._calibrated else "the model's"}

    async def stream(self, samples: Sequence[Sample]) -> AsyncGenerator[Prediction, None]:
        """Yield one prediction for each sample, in the order in which they arrive. Closing it abandons the rest.

        Raises ServicePredictionError for a refusal, for silence after every attempt, and when the weights change on the
        way; DataError for captions and for images that cannot be read.
        """
        waiting = iter(samples)
        asked: set[asyncio.Task[Prediction]] = set()
        try:
            while True:
                while len(asked) < self._concurrency and (sample := next(waiting, None)) is not None:
                    asked.add(asyncio.create_task(self._ask(sample)))
                if not asked:
                    return
                done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(self, sample: Sample) -> Prediction:
        if sample.kind == "caption":
            raise DataError("captions are not predicted: they have no question")
        try:
            if sample.kind == "vqa":
                answer = await self._client.ask(
                    sample.image, sample.question or "", max_tokens=self._max_tokens, temperature=0, **_OPTIONS
                )
                self._note(answer, calibrated=answer.confidence is not None and answer.confidence.calibrated)
                return _answer(sample, answer)
            found = await self._client.classify(
                sample.image, sample.labels, contextual_calibration=self._contextual_calibration, **_OPTIONS
            )
        except InvalidInput as error:
            raise DataError(str(error)) from error
        except ClientError as error:
            raise ServicePredictionError(f"sample {sample.id}: {error}") from error
        self._note(found, calibrated=found.calibration is not None)
        return _classification(sample, found)

    def _note(self, answer: VqaAnswer | Classification, *, calibrated: bool) -> None:
        found = {"model": answer.model, "weights_sha256": answer.provenance.weights_sha256}
        if self._answered_by and self._answered_by != found:
            raise ServicePredictionError("the service changed its checkpoint during the evaluation; start again")
        self._answered_by = found
        self._calibrated |= calibrated


@contextmanager
def blocking(predictor: ServerPredictor) -> Iterator[Predict]:
    """Give the predictor as a plain function, on one event loop that is closed at the end."""
    with asyncio.Runner() as runner:

        def predict(samples: Sequence[Sample]) -> Iterator[Prediction]:
            stream = predictor.stream(samples)
            try:
                while (prediction := runner.run(_next(stream))) is not None:
                    yield prediction
            finally:
                runner.run(stream.aclose())

        try:
            yield predict
        finally:
            runner.run(predictor.close())


@contextmanager
def connected(
    url: str, *, token_file: Path | None, max_tokens: int, concurrency: int, contextual_calibration: bool
) -> Iterator[tuple[ServerPredictor, Predict]]:
    """Give a predictor for the service at `url`; `token_file` holds the API key. Retries are noted."""
    with usage_errors():
        client = AsyncClient(url, api_key=api_key(token_file), timeout=_SECONDS, retry=reported(_PATIENT))
    predictor = ServerPredictor(
        client,
        max_tokens=max_tokens,
        concurrency=concurrency,
        contextual_calibration=contextual_calibration,
    )
    with blocking(predictor) as predict:
        yield predictor, predict


async def _next(stream: AsyncGenerator[Prediction, None]) -> Prediction | None:
    return await anext(stream, None)


def _answer(sample: Sample, answer: VqaAnswer) -> Prediction:
    return Prediction(
        id=sample.id,
        text=answer.answer,
        confidence=None if answer.confidence is None else answer.confidence.value,
        cut=answer.finish_reason == "length",
        routing=_routing(answer.routing),
    )


def _classification(sample: Sample, found: Classification) -> Prediction:
    # In the request's order; the service may have trimmed white space.
    rows = list(zip(sample.labels, found.probabilities, strict=True))
    scores = {label: row.log_likelihood for label, row in rows}
    prediction = of_labels(sample.id, scores, routing=_routing(found.routing))
    contextual = found.provenance.contextual_calibration
    if found.calibration is None and not contextual:
        return prediction
    shares = {label: row.probability for label, row in rows}
    # A calibration keeps the likeliest label, even where it makes two equal.
    text = max(shares, key=lambda label: shares[label]) if contextual else prediction.text
    return replace(prediction, text=text, probabilities=shares, confidence=shares[text])


def _routing(found: Routing | None) -> PromptRouting | None:
    if found is None or not found.layers:
        return None
    layers = {row.layer: tuple(a + b for a, b in zip(row.image, row.question, strict=True)) for row in found.layers}
    image = {row.layer: row.image for row in found.layers}
    return PromptRouting(expert_domains=found.expert_domains, layers=layers, image=image)
