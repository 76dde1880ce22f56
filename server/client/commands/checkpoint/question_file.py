"""Read the questions of a comparison from a JSON Lines file whose images are files."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from medmoe.client.errors import InvalidInput
from medmoe.client.images.image import Image

_SENT_AS_IT_IS = ("data:", "https:")


def read_questions(path: Path) -> list[dict[str, Any]]:
    """Return the questions, with the content of images in place of their paths, which are relative to the file.

    Raises InvalidInput.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [_question(line, number, path.parent) for number, line in enumerate(lines, start=1)]


def _question(line: str, number: int, folder: Path) -> dict[str, Any]:
    try:
        question = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"line {number} of the questions is not JSON") from error
    if not isinstance(question, dict):
        raise InvalidInput(f"line {number} of the questions is not a JSON object")
    image = question.get("image")
    if isinstance(image, str) and not image.startswith(_SENT_AS_IT_IS):
        question["image"] = b64encode(Image.of(folder / image).data).decode()
    return question
