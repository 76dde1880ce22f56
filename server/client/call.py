"""One request: what is sent, and how its answer is read. Both clients send these; no other module knows a route."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from medmoe.client.answers.classify import AnyClassification, ByMode, Mode
from medmoe.client.answers.metadata import Health, Metadata, ModelList
from medmoe.client.answers.router_stats import RouterStats
from medmoe.client.answers.vqa import VqaAnswer
from medmoe.client.errors import InvalidInput, UnexpectedAnswer
from medmoe.client.images.image import Picture, Source
from medmoe.client.options import AskOptions, ClassifyOptions

Answer = TypeVar("Answer")
Read = Callable[[httpx.Response], Answer]

_CONNECT_SECONDS = 10.0
_FILE_NAME = "image"
"""Sent as that of every picture: the real one may be a patient's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Generic[Answer]):
    """A GET, or with a picture a POST."""

    path: str
    read: Read[Answer]
    query: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str | list[str]] = field(default_factory=dict, repr=False)
    picture: Picture | None = None

    def request(self, http: httpx.Client | httpx.AsyncClient, *, seconds: float) -> httpx.Request:
        """For `http` to send, which may take so long."""
        timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        if self.picture is None:
            return http.build_request("GET", self.path, params=self.query, timeout=timeout)
        # A form and not JSON, whose base64 is a third longer than the picture.
        files = {"image": (_FILE_NAME, self.picture.data, "application/octet-stream")}
        return http.build_request("POST", self.path, data=self.fields, files=files, timeout=timeout)


def _reader(kind: Any) -> Read[Any]:
    """What makes one of `kind` of a response. Raises UnexpectedAnswer."""
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
_VQA = _reader(VqaAnswer)
_CLASSIFY = _reader(ByMode)
_ROUTER_STATS = _reader(RouterStats)


def ask(image: Source, question: str, options: AskOptions, *, stream: bool = False) -> Call[VqaAnswer]:
    """Raises InvalidInput, and TypeError for an option that there is not."""
    fields = _fields({"question": question, "stream": stream, **_known(options, AskOptions)})
    return Call(path="/v1/vqa", read=_VQA, fields=fields, picture=Picture.of(image))


def classify(
    image: Source, labels: Sequence[str], options: ClassifyOptions, *, mode: Mode = "likelihood"
) -> Call[AnyClassification]:
    """Raises InvalidInput, and TypeError for an option that there is not or labels that are one text."""
    if isinstance(labels, str):
        raise TypeError("labels are several texts, not one")
    fields = _fields({"labels": list(labels), "mode": mode, **_known(options, ClassifyOptions)})
    return Call(path="/v1/classify", read=_CLASSIFY, fields=fields, picture=Picture.of(image))


def router_stats(window: int | None) -> Call[RouterStats]:
    query = {} if window is None else {"window": str(window)}
    return Call(path="/v1/router/stats", read=_ROUTER_STATS, query=query)


def _known(options: Any, kind: Any) -> dict[str, Any]:
    """A misspelt option would otherwise be the service's to refuse, after the picture has been sent."""
    for name in options:
        if name not in kind.__optional_keys__:
            raise TypeError(f"there is no option {name}; there are {', '.join(sorted(kind.__optional_keys__))}")
    return dict(options)


def _fields(values: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """As a form holds them: several labels as several fields, one as a list, which no label can be mistaken for."""
    found: dict[str, str | list[str]] = {}
    for name, value in values.items():
        if value is None:
            continue
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
