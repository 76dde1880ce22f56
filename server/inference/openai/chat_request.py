"""Parse the body of a chat completion into a question, an image, and the client's names of both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request

from medmoe.model.prompt import History
from medmoe.server.errors import InvalidField, RequestError, UnsupportedParameter
from medmoe.server.http.error_responses import invalid
from medmoe.server.http.json_body import read_json_object
from medmoe.server.inference.openai.conversation import Conversation, ConversationRules, read_conversation
from medmoe.server.inference.openai.neutral import MAX_ITEMS, MESSAGES, check_image_url, without_neutral
from medmoe.server.schemas.inference import is_blank
from medmoe.server.schemas.openai.chat import (
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    OWN_FIELDS,
    ChatRequest,
    ImagePart,
    NotOffered,
    TextPart,
)
from medmoe.server.schemas.vqa import VQAFields

_TYPE_DEPTH = 4
_PART_DEPTH = 3
_TOOLS = frozenset({"function_call", "functions", "tool_choice", "tools"})
_OFFERED = frozenset(ChatRequest.model_fields) - NotOffered.model_fields.keys()


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatQuestion:
    """A chat with one question about one image."""

    fields: VQAFields
    """Among them the name of the model."""
    image: str
    """A data URL or an https URL; medmoe.server.imaging.intake checks it."""
    include_usage: bool
    stop: tuple[str, ...]
    top_logprobs: int | None
    """None: no log-probabilities are wanted."""
    history: History | None
    """What was said before the question; None where it is the first."""
    ignored: tuple[int, ...]
    """Indices of the messages whose texts were left out."""
    names: Mapping[str, str]
    """The client's names of the fields `image`, `question` and `max_tokens`, for error messages."""


async def receive_chat(request: Request, *, rules: Callable[[str | None], ConversationRules]) -> ChatQuestion:
    """Parse the body; `rules` tell for the name of a model what may stand before the question, or raise UnknownModel.

    Raises MalformedBody, InvalidField, UnsupportedParameter, UnsupportedContentType, MalformedImage, UnknownModel,
    BodyTooLarge, ClientDisconnected.
    """
    document = await read_json_object(request, known=ChatRequest.model_fields.keys(), offered=_OFFERED)
    document = without_neutral(document)
    conversation = read_conversation(document.get(MESSAGES), rules=rules(_model(document)))
    if MESSAGES in document:
        document[MESSAGES] = conversation.messages
        _check_content(conversation)
    _check_stop(document.get("stop"))
    for name in (MESSAGES, "stream_options"):
        if not _is_small(document.get(name)):
            raise InvalidField(f"a list or object in the field has over {MAX_ITEMS} items", param=name)
    try:
        chat = ChatRequest.model_validate_json(to_json(document), strict=True)
    except ValidationError as error:
        raise _refusal(error, conversation) from error
    return _question(chat, conversation)


def _model(document: Mapping[str, Any]) -> str | None:
    """Return the name of the model; None for what validation refuses."""
    name = document.get("model")
    return name if isinstance(name, str) else None


def _check_content(conversation: Conversation) -> None:
    """Refuse a message of text alone with what to send instead; validation refuses every other."""
    messages = conversation.messages
    if isinstance(messages, list) and messages and isinstance(messages[0], dict):
        content = messages[0].get("content")
        parts = content if isinstance(content, list) else []
        texts = [part for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        if isinstance(content, str) or (len(parts) == len(texts) == 1):
            raise UnsupportedParameter(
                "there is no image; send a list of one image_url part and at least one text part",
                param=conversation.question,
            )
        if len(parts) == 1:
            raise InvalidField(
                "there is no question; add a text part to the image_url part", param=conversation.question
            )


def _check_stop(stop: Any) -> None:
    """Refuse a wrong `stop` in one sentence; validation would describe each of its two forms."""
    strings = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(strings, list) or len(strings) > MAX_STOP_STRINGS:
        raise InvalidField(f"send a string or a list of at most {MAX_STOP_STRINGS} strings", param="stop")
    if not all(isinstance(string, str) and 0 < len(string) <= MAX_STOP_CHARS for string in strings):
        raise InvalidField(f"a stop string has 1 to {MAX_STOP_CHARS} characters", param="stop")


def _is_small(value: Any) -> bool:
    """Return whether every list and object in the five levels of `value` that have a schema is short."""
    level = [value]
    for _ in range(5):
        containers = [item for item in level if isinstance(item, list | dict)]
        if any(len(item) > MAX_ITEMS for item in containers):
            return False
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
    return True


def _question(chat: ChatRequest, conversation: Conversation) -> ChatQuestion:
    (message,) = chat.messages
    images = [(index, part) for index, part in enumerate(message.content) if isinstance(part, ImagePart)]
    if len(images) != 1:
        raise UnsupportedParameter("send exactly one image_url part", param=conversation.question)
    ((index, image),) = images
    image_name = f"{conversation.places[index]}.image_url.url"
    check_image_url(image.image_url.url, param=image_name)
    text = "\n".join(part.text for part in message.content if isinstance(part, TextPart)).strip()
    if is_blank(text):
        raise InvalidField("the text parts are blank", param=conversation.question)
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        raise InvalidField("send max_completion_tokens or max_tokens, not both", param="max_completion_tokens")
    if chat.top_logprobs is not None and not chat.logprobs:
        raise InvalidField("top_logprobs needs logprobs: true", param="top_logprobs")
    return ChatQuestion(
        fields=VQAFields(
            question=text,
            max_tokens=chat.max_completion_tokens or chat.max_tokens,
            temperature=chat.temperature or 0.0,
            seed=chat.seed,
            stream=bool(chat.stream),
            model=chat.model,
            **{name: getattr(chat, name) for name in OWN_FIELDS},
        ),
        image=image.image_url.url,
        include_usage=chat.stream_options is not None and chat.stream_options.include_usage,
        stop=(chat.stop,) if isinstance(chat.stop, str) else chat.stop or (),
        top_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        history=conversation.history,
        ignored=conversation.ignored,
        names={
            "image": image_name,
            "question": conversation.question,
            "max_tokens": "max_tokens" if chat.max_tokens is not None else "max_completion_tokens",
        },
    )


def _refusal(error: ValidationError, conversation: Conversation) -> RequestError:
    """Return the error as `invalid` does, but UnsupportedParameter for fields and values of OpenAI's API."""
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # Inside a part pydantic also names the part's type.
    place = [part for depth, part in enumerate(problem["loc"]) if depth != _TYPE_DEPTH]
    if place[:_PART_DEPTH] == [MESSAGES, 0, "content"]:
        if len(place) > _PART_DEPTH and conversation.places:
            place = [conversation.places[int(place[_PART_DEPTH])], *place[_PART_DEPTH + 1 :]]
        else:
            place = [conversation.question, *place[_PART_DEPTH:]]
    param = ".".join(map(str, place))
    match problem["type"]:
        case "none_required" if param in _TOOLS:
            return UnsupportedParameter(
                "the model calls no functions; turn tools off in the program that asks, or leave the field out",
                param=param,
            )
        case "none_required":
            return UnsupportedParameter(param=param)
        case "literal_error":
            return UnsupportedParameter(f"the value is not offered; {problem['msg'].lower()}", param=param)
        case "union_tag_invalid" | "union_tag_not_found":
            return UnsupportedParameter("the part's type must be text or image_url", param=f"{param}.type")
        case "extra_forbidden":
            # The last part of the path is the client's text.
            return InvalidField("there is an unknown field inside", param=".".join(map(str, place[:-1])))
    found = invalid(error, fields=_OFFERED)
    found.param = param or None
    return found
