"""Read the questions of a comparison: JSON bodies of /v1/vqa and /v1/classify."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from medmoe.server.errors import InvalidField
from medmoe.server.http.error_responses import invalid
from medmoe.server.rollout.schema import MAX_QUESTIONS
from medmoe.server.schemas.classify import ClassifyFields, ClassifyRequest
from medmoe.server.schemas.inference import SentImage
from medmoe.server.schemas.json_text import InvalidJSON, parse_json
from medmoe.server.schemas.vqa import VQAFields, VQARequest

_MEANINGLESS = frozenset({"model", "stream", "store", "include_report", "include_routing"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedQuestion:
    """A question or a classification about one image."""

    fields: VQAFields | ClassifyFields
    image: SentImage


def read_question_file(path: Path, *, max_bytes: int) -> tuple[ComparedQuestion, ...]:
    """Return the questions of a JSON Lines file. Raises InvalidField, which names the line's index."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidField(f"the file cannot be read: {error.strerror}", param="questions") from error
    if len(data) > max_bytes:
        raise InvalidField(f"the file is larger than {max_bytes} bytes (MEDMOE_MAX_BODY_BYTES)", param="questions")
    lines = [line for line in data.splitlines() if line.strip()]
    return read_questions([_parsed(line, index) for index, line in enumerate(lines[: MAX_QUESTIONS + 1])])


def _parsed(line: bytes, index: int) -> Any:
    try:
        return parse_json(line)
    except InvalidJSON as error:
        raise InvalidField(f"this line of the file {error}", param=f"questions.{index}") from error


def read_questions(documents: Sequence[Any]) -> tuple[ComparedQuestion, ...]:
    """Return the questions of parsed JSON. Raises InvalidField, which names the index of a question."""
    if not 0 < len(documents) <= MAX_QUESTIONS:
        raise InvalidField(f"send 1 to {MAX_QUESTIONS} questions", param="questions")
    return tuple(_question(document, f"questions.{index}") for index, document in enumerate(documents))


def _question(document: Any, place: str) -> ComparedQuestion:
    if not isinstance(document, dict):
        raise InvalidField("a question is a JSON object, as /v1/vqa or /v1/classify take it", param=place)
    kind = ClassifyRequest if "labels" in document else VQARequest
    if document.keys() & _MEANINGLESS:
        raise InvalidField(f"a comparison takes none of {', '.join(sorted(_MEANINGLESS))}", param=place)
    try:
        whole = kind.model_validate_json(to_json(document), strict=True)
    except ValidationError as error:
        raise invalid(error, fields=frozenset(kind.model_fields), within=place) from error
    fields = ClassifyFields if isinstance(whole, ClassifyRequest) else VQAFields
    return ComparedQuestion(fields=fields.model_validate(whole.model_dump(exclude={"image"})), image=whole.image)
