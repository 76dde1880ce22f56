"""Read the questions of a comparison from a JSON Lines file whose images are files."""

from base64 import b64encode
from pathlib import Path
from typing import Any

from medmoe.client.batch.records import Record, json_lines
from medmoe.client.errors import InvalidInput
from medmoe.client.images.image import Image

_SENT_AS_IT_IS = ("data:", "https:")


def read_questions(path: Path) -> list[dict[str, Any]]:
    """Return the questions, with the content of images in place of their paths, which are relative to the file.

    Raises InvalidInput, which names the line.
    """
    questions = []
    try:
        for number, record in json_lines(path):
            try:
                questions.append(_question(record, path.parent))
            except InvalidInput as error:
                raise InvalidInput(f"{path.name}, line {number}: {error}") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    return questions


def _question(record: Record | InvalidInput, folder: Path) -> dict[str, Any]:
    if isinstance(record, InvalidInput):
        raise record
    image = record.get("image")
    if isinstance(image, str) and not image.startswith(_SENT_AS_IT_IS):
        record["image"] = b64encode(Image.of(folder / image).data).decode()
    return record
