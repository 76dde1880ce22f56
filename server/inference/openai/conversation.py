"""Read the messages of a chat: the question to answer with its image, and what was said before."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medmoe.model.config import TurnsConfig
from medmoe.model.prompt import History
from medmoe.server.errors import InvalidField, UnsupportedParameter
from medmoe.server.inference.openai.neutral import INSTRUCTING, MAX_ITEMS, MESSAGES, plain_part

MAX_MESSAGES = 1024
_MAX_TEXTS = 8
"""How many times as long as the longest question the texts before it may be together: all are encoded."""
_WAY_OUT = "MEDMOE_CHAT_HISTORY=last_question makes the service answer the last question alone"

Said = tuple[int, dict[str, Any]]
"""A message and its index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationRules:
    """Messages that the checkpoint and the deployment allow before a question."""

    turns: TurnsConfig | None
    """The checkpoint's template; None where it was trained on single questions."""
    fallback: Literal["refuse", "last_question"]
    """What to do with messages that the template has no place for."""
    max_chars: int
    """The longest text of one message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """The messages of a chat."""

    messages: Any
    """One user message with the image and the question, for validation; malformed messages as they were sent."""
    places: list[str] = field(default_factory=list)
    """Where each of its parts was sent."""
    question: str = f"{MESSAGES}.0.content"
    """Where the question was sent."""
    history: History | None = None
    """None where nothing was said before."""
    ignored: tuple[int, ...] = ()
    """Indices of the messages whose texts were left out."""


def read_conversation(messages: Any, *, rules: ConversationRules) -> Conversation:
    """Return the conversation; consecutive user messages are one turn, and empty instructions are left out.

    Raises UnsupportedParameter for messages that the template has no place for, unless the fallback leaves them out,
    and for two different images. Raises InvalidField for texts that are too long and for malformed earlier messages.
    """
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return Conversation(messages=messages)
    if len(messages) > MAX_MESSAGES:
        raise InvalidField(f"there are over {MAX_MESSAGES} messages", param=MESSAGES)
    instructions, spoken = _by_role(messages)
    if not spoken:
        return Conversation(messages=[])
    begin = 1 + max((place for place, (_, one) in enumerate(spoken) if one["role"] != "user"), default=-1)
    earlier, asked = spoken[:begin], spoken[begin:]
    if not asked:
        raise UnsupportedParameter("the last message must be the user's", param=f"{MESSAGES}.{spoken[-1][0]}.role")
    message, places = _question(asked, image=_image_before(earlier, asked))
    left_out: list[Said] = []
    if instructions and not _has_place(instructions, rules.turns):
        if rules.fallback == "refuse":
            raise UnsupportedParameter(
                "the checkpoint's prompt has no place for these instructions; put what matters into the question, or "
                f"let the operator set the fallback: {_WAY_OUT}",
                param=f"{MESSAGES}.{instructions[0][0]}.role",
            )
        left_out += instructions
        instructions = []
    if earlier and rules.turns is None:
        if rules.fallback == "refuse":
            raise UnsupportedParameter(
                "the checkpoint was trained on single questions, so conversations are not offered; send one user "
                f"message with the image and the question, or let the operator set the fallback: {_WAY_OUT}",
                param=MESSAGES,
            )
        left_out += earlier
        earlier = []
    return Conversation(
        messages=[message],
        places=places,
        question=f"{MESSAGES}.{asked[0][0]}.content",
        history=_history(earlier, instructions, rules=rules) if earlier or instructions else None,
        ignored=tuple(sorted(index for index, _ in left_out)),
    )


def _by_role(messages: Sequence[dict[str, Any]]) -> tuple[list[Said], list[Said]]:
    """Return the instructions, without empty ones, and the messages of user and assistant."""
    instructions: list[Said] = []
    spoken: list[Said] = []
    for index, message in enumerate(messages):
        role = message.get("role")
        if role in INSTRUCTING:
            instructions += [(index, message)] if message.get("content") else []
        elif role in ("user", "assistant"):
            spoken.append((index, message))
        else:
            raise UnsupportedParameter(
                "the role must be user, assistant, system or developer", param=f"{MESSAGES}.{index}.role"
            )
    return instructions, spoken


def _has_place(instructions: Sequence[Said], turns: TurnsConfig | None) -> bool:
    """Return whether the template has a place for these instructions: one message before all others."""
    return turns is not None and bool(turns.system_message) and [index for index, _ in instructions] == [0]


def _question(asked: Sequence[Said], *, image: tuple[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """Return the last turn as one message with `image`, the one of an earlier turn, and the place of each part."""
    if len(asked) == 1 and image is None:
        index, message = asked[0]
        message = _without_name(message)
        content = message.get("content")
        if not isinstance(content, list) or len(content) > MAX_ITEMS:
            return message, []
        places = [f"{MESSAGES}.{index}.content.{place}" for place in range(len(content))]
        return message | {"content": [plain_part(part) for part in content]}, places
    parts: list[Any] = []
    places = []
    for index, message in asked:
        content = message.get("content")
        name = f"{MESSAGES}.{index}.content"
        if isinstance(content, str):
            parts.append({"type": "text", "text": content})
            places.append(name)
        elif isinstance(content, list) and len(parts) + len(content) <= MAX_ITEMS:
            parts.extend(map(plain_part, content))
            places.extend(f"{name}.{place}" for place in range(len(content)))
        else:
            raise InvalidField(f"the content is no text or list of at most {MAX_ITEMS} parts", param=name)
        if _without_name(message).keys() - {"role", "content"}:
            raise InvalidField("there is an unknown field inside", param=f"{MESSAGES}.{index}")
    if image is not None:
        places.append(image[0])
        parts.append(plain_part(image[1]))
    return {"role": "user", "content": parts}, places


def _image_before(earlier: Sequence[Said], asked: Sequence[Said]) -> tuple[str, Any] | None:
    """Return the place and the part of the image of the earlier turns, None where the last turn has it or none has.

    Raises UnsupportedParameter for a second image.
    """
    before, last = _images(earlier), _images(asked)
    shown = [_url(part) for _, part in before]
    for place, part in (*before, *last):
        if shown and _url(part) != shown[0]:
            raise UnsupportedParameter(
                "the conversation has two different images; begin a new one for another image", param=place
            )
    return before[-1] if before and not last else None


def _images(messages: Sequence[Said]) -> list[tuple[str, Any]]:
    """Return the place and the part of each image in the user's messages."""
    return [
        (f"{MESSAGES}.{index}.content.{place}", part)
        for index, message in messages
        if message["role"] == "user" and isinstance(message.get("content"), list)
        for place, part in enumerate(message["content"])
        if isinstance(part, dict) and part.get("type") == "image_url"
    ]


def _url(part: Any) -> Any:
    image = part.get("image_url")
    return image.get("url") if isinstance(image, dict) else image


def _history(earlier: Sequence[Said], instructions: Sequence[Said], *, rules: ConversationRules) -> History:
    turns: list[tuple[str, str]] = []
    questions: list[str] = []
    image_turn: int | None = None
    left = _MAX_TEXTS * rules.max_chars
    texts = {index: _text(message, f"{MESSAGES}.{index}", rules=rules) for index, message in (*instructions, *earlier)}
    for index, message in earlier:
        left -= len(texts[index])
        if left < 0:
            raise InvalidField("the conversation is too long; leave out its beginning", param=f"{MESSAGES}.{index}")
        if message["role"] == "user":
            if image_turn is None and _images([(index, message)]):
                image_turn = len(turns)
            questions.append(texts[index])
            continue
        question = "\n".join(filter(None, questions))
        if not question or not texts[index]:
            raise InvalidField(
                "a question and its answer follow each other, both with text", param=f"{MESSAGES}.{index}"
            )
        turns.append((question, texts[index]))
        questions = []
    return History(
        turns=tuple(turns),
        system_message="\n".join(texts[index] for index, _ in instructions) or None,
        image_turn=len(turns) if image_turn is None else image_turn,
    )


def _text(message: dict[str, Any], name: str, *, rules: ConversationRules) -> str:
    """Return the text of an earlier message; image parts are left to `_images`."""
    if any(value for key, value in message.items() if key not in ("role", "content", "name")):
        raise InvalidField("there is an unknown field inside", param=name)
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or len(parts) > MAX_ITEMS:
        raise InvalidField(f"the content is no text or list of at most {MAX_ITEMS} parts", param=f"{name}.content")
    found = []
    for place, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            found.append(part["text"])
        elif kind != "image_url" or message["role"] != "user":
            raise UnsupportedParameter("only text is offered here", param=f"{name}.content.{place}")
    text = "\n".join(found).strip()
    if len(text) > rules.max_chars:
        raise InvalidField(
            f"the text is longer than {rules.max_chars} characters (MEDMOE_MAX_QUESTION_CHARS)", param=f"{name}.content"
        )
    return text


def _without_name(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "name" or not isinstance(value, str)}
