"""Remove fields that change nothing from a request: clients of OpenAI's API send them always."""

from collections.abc import Callable, Mapping
from typing import Any

from medmoe.server.errors import MalformedImage
from medmoe.server.schemas.image_url import is_url

MAX_ITEMS = 64
"""The limit for one list or object: validation describes every wrong item."""
MESSAGES = "messages"
_DETAILS = ("auto", "low", "high", "original")
"""Sizes at which OpenAI looks at an image; here the checkpoint decides."""
INSTRUCTING = ("system", "developer")
"""Roles whose messages say how to answer."""


def _one_of(*values: Any) -> Callable[[Any], bool]:
    # 1 == True, so types are compared too: a number is no switch.
    return lambda value: any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in values)


_NEUTRAL: Mapping[str, Callable[[Any], bool]] = {
    # Names of the user and of the place where the client keeps the answer; they are neither stored nor logged here.
    "user": lambda value: isinstance(value, str),
    "safety_identifier": lambda value: isinstance(value, str),
    "metadata": lambda value: isinstance(value, dict),
    "chat_id": lambda value: isinstance(value, str),
    "session_id": lambda value: isinstance(value, str),
    "prompt_cache_key": lambda value: isinstance(value, str),
    "prompt_cache_options": lambda value: isinstance(value, dict),
    "store": _one_of(False),
    "service_tier": _one_of("auto", "default"),
    "top_p": _one_of(1),
    "top_k": _one_of(-1, 0),
    "presence_penalty": _one_of(0),
    "frequency_penalty": _one_of(0),
    "repetition_penalty": _one_of(1),
    "logit_bias": _one_of({}),
    "stop": _one_of([]),
    "logprobs": _one_of(False),
    "top_logprobs": _one_of(0),
    "tools": _one_of([]),
    "functions": _one_of([]),
    "tool_choice": _one_of("none", "auto"),
    "function_call": _one_of("none", "auto"),
    "parallel_tool_calls": lambda value: isinstance(value, bool),
    "response_format": _one_of({"type": "text"}),
    "modalities": _one_of(["text"]),
    "reasoning_effort": _one_of("none"),
}
_NEUTRAL_STREAM_OPTIONS = ("include_obfuscation", "continuous_usage_stats")


def check_image_url(url: str, *, param: str) -> None:
    """Raise MalformedImage for what is neither a data URL nor another URL."""
    if url[:5].lower() != "data:" and not is_url(url):
        raise MalformedImage("the image is not a data URL: data:image/png;base64,...", param=param)


def without_neutral(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that may change the answer."""
    kept = {name: value for name, value in document.items() if not (name in _NEUTRAL and _NEUTRAL[name](value))}
    if kept.get("top_k") == 1 and not kept.get("temperature"):
        # At temperature 0 the most likely token is taken anyway.
        del kept["top_k"]
    options = kept.get("stream_options")
    if isinstance(options, dict):
        kept["stream_options"] = options = {
            name: value for name, value in options.items() if name not in _NEUTRAL_STREAM_OPTIONS or value is not False
        }
        if not kept.get("stream") and not options.keys() - {"include_usage"}:
            del kept["stream_options"]
    if kept.get("max_tokens") == kept.get("max_completion_tokens"):
        kept.pop("max_tokens", None)
    return kept


def plain_part(part: Any) -> Any:
    """Return a part of a message without what changes nothing, and with its image as an object."""
    if not isinstance(part, dict):
        return part
    part = {name: value for name, value in part.items() if name != "cache_control"}
    image = part.get("image_url")
    if isinstance(image, str):
        part["image_url"] = {"url": image}
    elif isinstance(image, dict) and image.get("detail") in _DETAILS:
        part["image_url"] = {name: value for name, value in image.items() if name != "detail"}
    return part
