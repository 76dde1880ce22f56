"""Parse the body of a decision request: OpenAI's forms of input and questions become one message and plain text."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request

from medmoe.server.errors import InvalidField, RequestError, UnsupportedParameter
from medmoe.server.http.error_responses import invalid
from medmoe.server.http.json_body import read_json_object
from medmoe.server.inference.openai.neutral import INSTRUCTING, check_image_url, without_neutral
from medmoe.server.schemas.classify import MAX_LABELS
from medmoe.server.schemas.inference import is_blank
from medmoe.server.schemas.openai.decision_request import (
    MAX_PARTS,
    MAX_QUESTIONS,
    DecisionRequest,
    InputImage,
    InputText,
)

_INPUT, _QUESTIONS = "input", "questions"
_TEXT = "input_text"
_FIELDS = frozenset(DecisionRequest.model_fields)
_OFFERED = _FIELDS - {"prompt_cache_key", "prompt_cache_options", "safety_identifier"}
_PART = 4
"""Length of the path `input.0.content.INDEX`."""
_OPTION = 5
"""Length of the path `questions.INDEX.choices.INDEX.value`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedDecision:
    """Questions about one image."""

    request: DecisionRequest
    image: str
    """A data URL or an https URL; medmoe.server.imaging.intake checks it."""
    texts: str
    """The texts beside the image, which stand before every question; empty without any."""
    names: dict[str, str]
    """The client's name of the field `image`, for error messages."""


async def receive_decision(request: Request) -> AskedDecision:
    """Parse the body.

    Raises MalformedBody, InvalidField, UnsupportedParameter, UnsupportedContentType, MalformedImage, BodyTooLarge,
    ClientDisconnected.
    """
    document = without_neutral(await read_json_object(request, known=_FIELDS, offered=_OFFERED))
    places: list[str] = []
    if _INPUT in document:
        document[_INPUT], places = _one_message(document[_INPUT])
    if isinstance(document.get(_QUESTIONS), list):
        document[_QUESTIONS] = _plain_questions(document[_QUESTIONS])
    try:
        asked = DecisionRequest.model_validate_json(to_json(document), strict=True)
    except ValidationError as error:
        raise _refusal(error, places=places) from error
    parts = asked.input[0].content
    images = [
        (place, part.image_url) for place, part in zip(places, parts, strict=True) if isinstance(part, InputImage)
    ]
    if len(images) != 1:
        raise UnsupportedParameter("send exactly one input_image part", param=_INPUT)
    ((place, url),) = images
    check_image_url(url, param=f"{place}.image_url")
    return AskedDecision(
        request=asked,
        image=url,
        texts="\n".join(part.text.strip() for part in parts if isinstance(part, InputText) and not is_blank(part.text)),
        names={"image": f"{place}.image_url"},
    )


def _one_message(messages: Any) -> tuple[Any, list[str]]:
    """Return all user messages as one, and the place of each part as it was sent; empty instructions are left out.

    What is malformed stays as it is, for validation to refuse.
    """
    if isinstance(messages, str):
        raise UnsupportedParameter("there is no image; send a user message with an input_image part", param=_INPUT)
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return None, []
    parts: list[Any] = []
    places: list[str] = []
    for index, message in enumerate(messages):
        name, content = f"{_INPUT}.{index}", message.get("content")
        if message.get("role") in INSTRUCTING and not content:
            continue
        if message.get("type", "message") not in ("message", None):
            raise UnsupportedParameter("only messages are offered", param=f"{name}.type")
        if message.get("role") != "user":
            raise UnsupportedParameter(
                "only user messages are offered; put what matters into the questions", param=f"{name}.role"
            )
        if message.keys() - {"role", "type", "content"}:
            raise InvalidField("there is an unknown field inside", param=name)
        if isinstance(content, str):
            content = [{"type": _TEXT, "text": content}]
        if not isinstance(content, list) or len(parts) + len(content) > MAX_PARTS:
            raise InvalidField(f"the content is no text or list of at most {MAX_PARTS} parts", param=f"{name}.content")
        parts.extend(map(_plain_part, content))
        places.extend(f"{name}.content.{place}" for place in range(len(content)))
    return ([{"role": "user", "content": parts}] if parts else []), places


def _plain_part(part: Any) -> Any:
    """Return a part of the input or of instructions without the marks of a prompt cache."""
    if not isinstance(part, dict):
        return part
    return {name: value for name, value in part.items() if name != "prompt_cache_breakpoint"}


def _plain_questions(questions: list[Any]) -> list[Any]:
    """Return the questions without nulls, and with text for instructions that are lists of texts."""
    if len(questions) > MAX_QUESTIONS:
        raise InvalidField(f"more than {MAX_QUESTIONS} questions", param=_QUESTIONS)
    return [_plain_question(question, f"{_QUESTIONS}.{index}") for index, question in enumerate(questions)]


def _plain_question(question: Any, name: str) -> Any:
    if not isinstance(question, dict):
        return question
    plain = _without_nulls(question)
    for options in ("choices", "levels"):
        given = plain.get(options)
        if isinstance(given, list):
            if len(given) > MAX_LABELS:
                raise InvalidField(f"more than {MAX_LABELS}", param=f"{name}.{options}")
            plain[options] = [_without_nulls(one) for one in given]
            for index, one in enumerate(plain[options]):
                if isinstance(one, dict) and "description" in one:
                    raise UnsupportedParameter(
                        "options are scored by their own words; put descriptions into instructions",
                        param=f"{name}.{options}.{index}.description",
                    )
    instructions = plain.get("instructions")
    if isinstance(instructions, list):
        texts = [_instruction(part, f"{name}.instructions.{index}") for index, part in enumerate(instructions)]
        plain["instructions"] = "\n".join(texts)
    return plain


def _instruction(part: Any, name: str) -> str:
    part = _plain_part(part)
    if isinstance(part, dict) and part.get("type") != _TEXT:
        raise UnsupportedParameter(f"the part's type must be {_TEXT}", param=f"{name}.type")
    if not isinstance(part, dict) or part.keys() != {"type", "text"} or not isinstance(part["text"], str):
        raise InvalidField(f"send a text, or parts with type {_TEXT} and text", param=name)
    return part["text"]


def _without_nulls(value: Any) -> Any:
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


def _refusal(error: ValidationError, *, places: list[str]) -> RequestError:
    """Return the error for the first problem, with the client's name of its field."""
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    path = _path(problem["loc"], places=places)
    match problem["type"]:
        case "none_required":
            return UnsupportedParameter(param=path)
        case "union_tag_invalid" | "union_tag_not_found":
            kinds = "predicate, choice or score" if problem["loc"][0] == _QUESTIONS else f"{_TEXT} or input_image"
            return UnsupportedParameter(f"the type must be {kinds}", param=f"{path}.type")
        case "literal_error":
            return UnsupportedParameter(f"the value is not offered; {problem['msg'].lower()}", param=path)
        case "extra_forbidden":
            # The last part of the path is the client's text.
            return InvalidField("there is an unknown field inside", param=path.rpartition(".")[0])
    found = invalid(error, fields=_OFFERED)
    found.param = path
    return found


def _path(location: tuple[int | str, ...], *, places: list[str]) -> str:
    """Return the path of a field without the types of parts and questions, which pydantic puts into it."""
    if location[0] == _INPUT and len(location) >= _PART:
        return ".".join((places[int(location[_PART - 1])], *map(str, location[_PART + 1 :])))
    if location[0] == _QUESTIONS:
        return ".".join(map(str, (*location[:2], *location[3:])[:_OPTION]))
    return ".".join(map(str, location))
