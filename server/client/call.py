"""Build the requests that both clients send and parse their responses."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from medmoe.client.answers.checkpoint import CheckpointStatus
from medmoe.client.answers.classify import AnyClassification, ByMode, Mode
from medmoe.client.answers.decisions import Decision
from medmoe.client.answers.explain import Explanation
from medmoe.client.answers.metadata import Health, Metadata, ModelList
from medmoe.client.answers.render import RenderedImage
from medmoe.client.answers.router_stats import RouterStats
from medmoe.client.answers.series import SeriesAnswer, SeriesClassification
from medmoe.client.answers.sources import InstanceList, SeriesList, SourceList, StudyList
from medmoe.client.answers.vqa import VqaAnswer
from medmoe.client.errors import InvalidInput, UnexpectedAnswer
from medmoe.client.images.image import Image, Source
from medmoe.client.images.instance import Instance
from medmoe.client.images.series import Series, SeriesSource, series_files
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

Answer = TypeVar("Answer")
Read = Callable[[httpx.Response], Answer]
ImageSource: TypeAlias = Source | Instance
"""The image itself, or the name of one that the service fetches."""

_CONNECT_SECONDS = 10.0
_FILE_NAME = "image"
"""File name sent with every image: the real one may name a patient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Generic[Answer]):
    """Describe one request: a POST if it has an image, a series or a body, otherwise `method`."""

    path: str
    read: Read[Answer]
    query: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    image: Image | Instance | None = None
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    """JSON that carries the image itself."""
    series: Series | tuple[Image, ...] | None = None
    method: Literal["GET", "POST", "DELETE"] = "GET"
    idempotent: bool = True
    """Whether sending it a second time changes nothing more."""

    def request(self, http: httpx.Client | httpx.AsyncClient, *, seconds: float) -> httpx.Request:
        """Build the request for `http`, with a timeout in seconds."""
        timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        if self.body is not None:
            return http.build_request("POST", self.path, json=self.body, timeout=timeout)
        name, sent = ("image", self.image) if self.series is None else ("series", self.series)
        if sent is None:
            return http.build_request(self.method, self.path, params=self.query, timeout=timeout)
        if isinstance(sent, Instance | Series):
            body = {name: asdict(sent), **self.fields}
            return http.build_request("POST", self.path, json=body, timeout=timeout)
        # A form and not JSON, whose base64 is a third longer.
        images = sent if isinstance(sent, tuple) else (sent,)
        files = [(name, (_FILE_NAME, image.data, "application/octet-stream")) for image in images]
        return http.build_request("POST", self.path, data=_form(self.fields), files=files, timeout=timeout)


def _reader(kind: Any) -> Read[Any]:
    """Return a function that parses a response into `kind`. Raises UnexpectedAnswer."""
    adapter = TypeAdapter(kind)

    def read(response: httpx.Response) -> Any:
        try:
            return adapter.validate_json(response.content)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(map(str, problem["loc"])) or "the whole"
            raise UnexpectedAnswer(
                f"the answer of {response.request.url.path} is not what this client knows: {where}: {problem['msg']}"
            ) from error

    return read


METADATA: Call[Metadata] = Call(path="/v1/metadata", read=_reader(Metadata))
MODELS: Call[ModelList] = Call(path="/v1/models", read=_reader(ModelList))
READY: Call[Health] = Call(path="/health/ready", read=_reader(Health))
MODEL_CARD: Call[str] = Call(path="/v1/model-card", read=lambda response: response.text)
_CHECKPOINT = _reader(CheckpointStatus)
CHECKPOINT_STATUS: Call[CheckpointStatus] = Call(path="/admin/checkpoint", read=_CHECKPOINT)
ACTIVATE: Call[CheckpointStatus] = Call(
    path="/admin/checkpoint/activate", read=_CHECKPOINT, method="POST", idempotent=False
)
ROLLBACK: Call[CheckpointStatus] = Call(
    path="/admin/checkpoint/rollback", read=_CHECKPOINT, method="POST", idempotent=False
)
UNLOAD: Call[CheckpointStatus] = Call(path="/admin/checkpoint", read=_CHECKPOINT, method="DELETE", idempotent=False)
_VQA = _reader(VqaAnswer)
_CLASSIFY = _reader(ByMode)
_DECISIONS = _reader(Decision)
_EXPLAIN = _reader(Explanation)
_RENDER = _reader(RenderedImage)
_SERIES_ANSWER = _reader(SeriesAnswer)
_SERIES_LABELS = _reader(SeriesClassification)
_ROUTER_STATS = _reader(RouterStats)


def ask(image: ImageSource, question: str, options: AskOptions, *, stream: bool = False) -> Call[VqaAnswer]:
    """Build a question. Raises InvalidInput, and TypeError for an unknown option."""
    fields = _fields({"question": question, "stream": stream, **_known(options, AskOptions, image)})
    return Call(path="/v1/vqa", read=_VQA, fields=fields, image=_image(image), idempotent=_stores_one(fields))


def classify(
    image: ImageSource, labels: Sequence[str], options: ClassifyOptions, *, mode: Mode = "likelihood"
) -> Call[AnyClassification]:
    """Build a classification. Raises InvalidInput, and TypeError for an unknown option or labels in one string."""
    given = {"labels": _labels(labels), "mode": _unless_default(mode)}
    fields = _fields({**given, **_known(options, ClassifyOptions, image)})
    return Call(path="/v1/classify", read=_CLASSIFY, fields=fields, image=_image(image))


def explain(
    image: ImageSource, question: str | None, labels: Sequence[str] | None, options: ExplainOptions
) -> Call[Explanation]:
    """Build a map of a question's answer or of a label. Raises InvalidInput, and TypeError as `classify`."""
    given = {"question": question, "labels": None if labels is None else _labels(labels)}
    fields = _fields({**given, **_known(options, ExplainOptions, image)})
    return Call(path="/v1/explain", read=_EXPLAIN, fields=fields, image=_image(image))


def render(image: ImageSource, options: RenderOptions) -> Call[RenderedImage]:
    """Build a rendering. Raises InvalidInput, and TypeError for an unknown option."""
    fields = _fields(_known(options, RenderOptions, image))
    return Call(path="/v1/render", read=_RENDER, fields=fields, image=_image(image))


def decisions(image: Source, questions: Sequence[Question], options: DecisionOptions) -> Call[Decision]:
    """Build typed questions about an image. Raises InvalidInput, and TypeError for an unknown option."""
    url = f"data:application/octet-stream;base64,{b64encode(Image.of(image).data).decode()}"
    asked = [question.document() for question in questions]
    fields = _fields({"questions": asked, **_known(options, DecisionOptions, image)})
    message = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
    return Call(path="/v1/decisions", read=_DECISIONS, body={"input": [message], **fields})


def ask_series(
    series: SeriesSource, question: str, options: AskSeriesOptions, *, stream: bool = False
) -> Call[SeriesAnswer]:
    """Build a question about a series. Raises InvalidInput, and TypeError for an unknown option."""
    fields = _fields({"question": question, "stream": stream, **_known(options, AskSeriesOptions)})
    return Call(path="/v1/series", read=_SERIES_ANSWER, fields=fields, series=series_files(series))


def classify_series(
    series: SeriesSource,
    labels: Sequence[str],
    options: ClassifySeriesOptions,
    *,
    mode: Mode = "likelihood",
    stream: bool = False,
) -> Call[SeriesClassification]:
    """Build a classification of a series. Raises InvalidInput, and TypeError as `classify`."""
    given = {"labels": _labels(labels), "mode": _unless_default(mode), "stream": stream}
    fields = _fields({**given, **_known(options, ClassifySeriesOptions)})
    return Call(path="/v1/series", read=_SERIES_LABELS, fields=fields, series=series_files(series))


def router_stats(window: int | None) -> Call[RouterStats]:
    """Build a request for the router's statistics over the last `window` seconds, or since the start."""
    return Call(path="/v1/router/stats", read=_ROUTER_STATS, query=_query(window=window))


def load_checkpoint(
    name: str, questions: str | Sequence[Mapping[str, Any]] | None, *, activate: bool, min_agreement: float | None
) -> Call[CheckpointStatus]:
    """Build a request to load a checkpoint."""
    asked = questions if questions is None or isinstance(questions, str) else list(questions)
    body = {"name": name, "questions": asked, "activate": activate, "min_agreement": min_agreement}
    return Call(path="/admin/checkpoint", read=_CHECKPOINT, body=_fields(body), idempotent=False)


SOURCES: Call[SourceList] = Call(path="/v1/sources", read=_reader(SourceList))
_STUDIES = _reader(StudyList)
_SERIES = _reader(SeriesList)
_INSTANCES = _reader(InstanceList)


def studies(source: str, *, modality: str | None, date: str | None, limit: int | None) -> Call[StudyList]:
    """Build a query for the studies of a source."""
    return Call(path=_path(source), read=_STUDIES, query=_query(modality=modality, date=date, limit=limit))


def series(source: str, study: str, *, limit: int | None) -> Call[SeriesList]:
    """Build a query for the series of a study."""
    return Call(path=f"{_path(source, study)}/series", read=_SERIES, query=_query(limit=limit))


def instances(source: str, study: str, series_: str, *, limit: int | None) -> Call[InstanceList]:
    """Build a query for the instances of a series."""
    path = f"{_path(source, study)}/series/{quote(series_, safe='')}/instances"
    return Call(path=path, read=_INSTANCES, query=_query(limit=limit))


def _query(**values: str | int | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _path(source: str, *study: str) -> str:
    return "/".join(["/v1/sources", quote(source, safe=""), "studies", *(quote(uid, safe="") for uid in study)])


def _known(options: Any, kind: Any, image: object = None) -> dict[str, Any]:
    """Return the options about `image`. Raises TypeError for an unknown one, before the image is sent."""
    for name in options:
        if name not in kind.__optional_keys__:
            raise TypeError(f"there is no option {name}; there are {', '.join(sorted(kind.__optional_keys__))}")
    found = dict(options)
    if isinstance(image, Image) and image.is_chosen_frame:
        found.pop("frame", None)
    return found


def _stores_one(fields: Mapping[str, Any]) -> bool:
    """Return whether the same report is stored each time: another answer, by another seed, has another report."""
    return not (fields.get("store") and fields.get("temperature")) or "seed" in fields


def _unless_default(mode: Mode) -> Mode | None:
    """Return a mode other than the default of the service, or None."""
    return None if mode == "likelihood" else mode


def _labels(labels: Sequence[str]) -> list[str]:
    if isinstance(labels, str):
        raise TypeError("labels are several texts, not one")
    return list(labels)


def _image(source: ImageSource) -> Image | Instance:
    return source if isinstance(source, Instance) else Image.of(source)


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are given. Raises InvalidInput for text that cannot be sent.

    A service that is older than the client refuses fields that it does not know; False is every flag's absence.
    """
    given = {name: value for name, value in values.items() if value is not None and value is not False}
    _form(given)
    return given


def _form(values: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Encode form fields: several labels become repeated fields, a single one becomes a JSON list."""
    found: dict[str, str | list[str]] = {}
    for name, value in values.items():
        several = isinstance(value, list) and len(value) > 1
        found[name] = [_text(item, name) for item in value] if several else _text(value, name)
    return found


def _text(value: Any, name: str) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} holds characters that are no Unicode text") from error
    return text
