"""Answers of a running service, over the routes that everybody uses: what is measured is what is served.

The picture's file goes as it is, so that decoding and preprocessing are the service's.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from medmoe.model.errors import MedMoEError
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Predict, Prediction, PromptRouting, of_labels

_AGAIN = frozenset({429, 503})
_LONGEST_WAIT = 120.0


class ServiceError(MedMoEError):
    """The service did not answer, or not with what its schema promises."""


class ServerPredictor:
    """Asks `/v1/vqa` and `/v1/classify`, a few requests at a time."""

    def __init__(
        self, client: httpx.AsyncClient, *, max_tokens: int = 32, concurrency: int = 8, attempts: int = 10
    ) -> None:
        """`client` knows the service's address; each request is tried `attempts` times."""
        self._client = client
        self._max_tokens = max_tokens
        self._concurrency = concurrency
        self._attempts = attempts
        self._answered_by: dict[str, str | None] = {}
        self._calibrated = False

    @property
    def identity(self) -> dict[str, str | None]:
        """`model` and `weights_sha256` as the service stated them, and whose the confidences are."""
        return self._answered_by | {"confidences": "calibrated by the service" if self._calibrated else "the model's"}

    async def stream(self, samples: Sequence[Sample]) -> AsyncGenerator[Prediction, None]:
        """One prediction for each sample, in the order in which they come. Closing it abandons the rest.

        Raises ServiceError for a refusal, for silence after every attempt, and when the weights change on the way;
        DataError for captions and for pictures that cannot be read.
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

    async def _ask(self, sample: Sample) -> Prediction:
        if sample.kind == "caption":
            raise DataError("captions are not predicted: they have no question")
        try:
            image = base64.b64encode(sample.image.read_bytes()).decode()
        except OSError as error:
            raise DataError(f"{sample.image} cannot be read: {error.strerror}") from error
        # A blanked image, the control of an evaluation, has one shade.
        body: dict[str, Any] = {"image": image, "include_routing": True, "allow_uniform": True}
        if sample.kind == "vqa":
            body |= {"question": sample.question, "max_tokens": self._max_tokens, "temperature": 0}
            answer = await self._post("/v1/vqa", body, sample=sample)
        else:
            answer = await self._post("/v1/classify", body | {"labels": list(sample.labels)}, sample=sample)
        try:
            self._note(answer)
            return _prediction(sample, answer)
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError(f"the answer for sample {sample.id} is not what /docs promises") from error

    async def _post(self, route: str, body: dict[str, Any], *, sample: Sample) -> dict[str, Any]:
        problem = ""
        for attempt in range(self._attempts):
            wait = min(2.0**attempt, _LONGEST_WAIT)
            try:
                response = await self._client.post(route, json=body)
            except httpx.TransportError as error:
                problem = f"no answer ({type(error).__name__})"
            else:
                if response.is_success:
                    return _object(response, sample=sample)
                problem = _refusal(response)
                if response.status_code not in _AGAIN:
                    raise ServiceError(f"the service refused sample {sample.id}: {problem}")
                wait = _retry_after(response, otherwise=wait)
            if attempt + 1 < self._attempts:
                await asyncio.sleep(wait)
        raise ServiceError(f"sample {sample.id}, after {self._attempts} attempts: {problem}")

    def _note(self, answer: dict[str, Any]) -> None:
        found = {"model": answer["model"], "weights_sha256": answer["provenance"]["weights_sha256"]}
        if self._answered_by and self._answered_by != found:
            raise ServiceError("the service changed its checkpoint during the evaluation; start again")
        self._answered_by = found
        confidence = answer.get("confidence") or {}
        self._calibrated |= bool(confidence.get("calibrated")) or answer.get("calibration") is not None


@contextmanager
def blocking(predictor: ServerPredictor) -> Iterator[Predict]:
    """The predictor as a plain function, on one event loop that is closed at the end."""
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
            runner.run(predictor._client.aclose())


@contextmanager
def connected(
    url: str, *, token_file: Path | None, max_tokens: int, concurrency: int, timeout_seconds: float = 300
) -> Iterator[tuple[ServerPredictor, Predict]]:
    """A predictor for the service at `url`; `token_file` holds a bearer token, which must not be in a command line."""
    headers = {}
    if token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
        except OSError as error:
            raise ServiceError(f"{token_file} cannot be read: {error.strerror}") from error
    client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_seconds)
    predictor = ServerPredictor(client, max_tokens=max_tokens, concurrency=concurrency)
    with blocking(predictor) as predict:
        yield predictor, predict


async def _next(stream: AsyncGenerator[Prediction, None]) -> Prediction | None:
    return await anext(stream, None)


async def collect(predictor: ServerPredictor, samples: Sequence[Sample]) -> list[Prediction]:
    """Everything at once, for callers that have an event loop of their own."""
    async with aclosing(predictor.stream(samples)) as stream:
        return [prediction async for prediction in stream]


def _prediction(sample: Sample, answer: dict[str, Any]) -> Prediction:
    routing = _routing(answer.get("routing"))
    if sample.kind == "vqa":
        confidence = answer["confidence"]
        return Prediction(
            id=sample.id,
            text=answer["answer"],
            confidence=None if confidence is None else float(confidence["value"]),
            cut=answer["finish_reason"] == "length",
            routing=routing,
        )
    # In the request's order; the service may have trimmed white space.
    rows = list(zip(sample.labels, answer["probabilities"], strict=True))
    found = of_labels(sample.id, {label: float(row["log_likelihood"]) for label, row in rows}, routing=routing)
    if answer.get("calibration") is None:
        return found
    shares = {label: float(row["probability"]) for label, row in rows}
    return replace(found, probabilities=shares, confidence=shares[found.text])


def _routing(found: dict[str, Any] | None) -> PromptRouting | None:
    if found is None:
        return None
    layers = {
        int(row["layer"]): tuple(a + b for a, b in zip(row["image"], row["question"], strict=True))
        for row in found["layers"]
    }
    image = {int(row["layer"]): tuple(row["image"]) for row in found["layers"]}
    return PromptRouting(expert_domains=tuple(found["expert_domains"]), layers=layers, image=image) if layers else None


def _object(response: httpx.Response, *, sample: Sample) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError as error:
        raise ServiceError(f"the answer for sample {sample.id} is not JSON") from error
    if not isinstance(found, dict):
        raise ServiceError(f"the answer for sample {sample.id} is not a JSON object")
    return found


def _refusal(response: httpx.Response) -> str:
    """Status, and the code and message of the service's one error body where it is one."""
    try:
        error = response.json()["error"]
        return f"{response.status_code} {error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"


def _retry_after(response: httpx.Response, *, otherwise: float) -> float:
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), _LONGEST_WAIT)
    except (KeyError, ValueError):
        return otherwise
