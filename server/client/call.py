"""Build the requests that both clients send and parse their responses."""

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
from medmoe.client.images.image import Image, Source
from medmoe.client.options import AskOptions, ClassifyOptions

Answer = TypeVar("Answer")
Read = Callable[[httpx.Response], Answer]

_CONNECT_SECONDS = 10.0
_FILE_NAME = "image"
"""File name sent with every image: the real one may name a patient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Generic[Answer]):
    """Describe one request: a POST if it has an image, otherwise a GET."""

    path: str
    read: Read[Answer]
    query: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str | list[str]] = field(default_factory=dict, repr=False)
    image: Image | None = None

    def request(self, http: httpx.Client | httpx.AsyncClient, *, seconds: float) -> httpx.Request:
        """Build the request for `http`, with a timeout in seconds."""
        timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        if self.image is None:
            return http.build_request("GET", self.path, params=self.query, timeout=timeout)
        # A form and not JSON, whose base64 is a third longer.
        files = {"image": (_FILE_NAME, self.image.data, "application/octet-stream")}
        return http.build_request("POST", self.path, data=self.fields, files=files, timeout=timeout)


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
_VQA = _reader(VqaAnswer)
_CLASSIFY = _reader(ByMode)
_ROUTER_STATS = _reader(RouterStats)


def ask(image: Source, question: str, options: AskOptions, *, stream: bool = False) -> Call[VqaAnswer]:
    """Build a question. Raises InvalidInput, and TypeError for an unknown option."""
    fields = _fields({"question": question, "stream": stream, **_known(options, AskOptions)})
    return Call(path="/v1/vqa", read=_VQA, fields=fields, image=Image.of(image))


def classify(
    image: Source, labels: Sequence[str], options: ClassifyOptions, *, mode: Mode = "likelihood"
) -> Call[AnyClassification]:
    """Build a classification. Raises InvalidInput, and TypeError for an unknown option or labels in one string."""
    if isinstance(labels, str):
        raise TypeError("labels are several texts, not one")
    fields = _fields({"labels": list(labels), "mode": mode, **_known(options, ClassifyOptions)})
    return Call(path="/v1/classify", read=_CLASSIFY, fields=fields, image=Image.of(image))


def router_stats(window: int | None) -> Call[RouterStats]:
    """Build a request for the router's statistics over the last `window` seconds, or since the start."""
    query = {} if window is None else {"window": str(window)}
    return Call(path="/v1/router/stats", read=_ROUTER_STATS, query=query)


def _known(options: Any, kind: Any) -> dict[str, Any]:
    """Return the options. Raises TypeError for an unknown one, before the image is sent."""
    for name in options:
        if name not in kind.__optional_keys__:
            raise TypeError(f"there is no option {name}; there are {', '.join(sorted(kind.__optional_keys__))}")
    return dict(options)


def _fields(values: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Encode form fields: several labels become repeated fields, a single one becomes a JSON list."""
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
