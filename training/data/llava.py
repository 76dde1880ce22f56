"""Reader of the LLaVA conversation JSON, the form in which LLaVA-Med and Med-MoE publish their data.

A file is one list of `{"id", "image", "conversations": [{"from", "value"}, ...]}`, with `answer_type` and `modality`
where upstream's evaluator or router training needs them.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError, SampleError
from medmoe.training.data.image_path import image_path
from medmoe.training.data.read_result import BadItem, ReadResult
from medmoe.training.data.sample import AnswerType, Sample

_MARKER = "<image>"
_ANSWER_TYPES: dict[str, AnswerType] = {"open": "open", "close": "closed", "closed": "closed"}


def read_llava(file: Path, *, images: Path, dataset: str, split: Split, captions: bool = False) -> ReadResult:
    """One sample a (human, gpt) pair of `file`, with id `ID/TURN` (turns from 0); image names are below `images`.

    Later turns do not see the earlier ones: each becomes a question of its own. `captions` drops the questions, as
    upstream's `plain` template does in the alignment stage. An item of which any part is unusable is reported whole,
    text-only items and items of several images among them: this version answers about exactly one image.
    Raises DatasetError when the file cannot be read or is not a JSON list.
    """
    try:
        items = json.loads(file.read_bytes())
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not JSON") from error
    if not isinstance(items, list):
        raise DatasetError(f"{file} is not a JSON list of conversations")
    samples: list[Sample] = []
    bad: list[BadItem] = []
    seen: set[str] = set()
    for number, item in enumerate(items, start=1):
        try:
            found = list(_samples(item, images=images, dataset=dataset, split=split, captions=captions))
            _claim((sample.id for sample in found), seen=seen)
            samples += found
        except SampleError as error:
            bad.append(BadItem(file=file.name, place=number, reason=str(error)))
    return ReadResult(samples=tuple(samples), bad=tuple(bad))


def _samples(item: Any, *, images: Path, dataset: str, split: Split, captions: bool) -> Iterator[Sample]:
    if not isinstance(item, dict):
        raise SampleError("not a JSON object")
    name = item.get("id")
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise SampleError("id is missing")
    image = image_path(_image_name(item), directory=images)
    modality = item.get("modality")
    if modality is not None and not isinstance(modality, str):
        raise SampleError("modality is not text")
    for turn, (question, answer) in enumerate(_turns(item)):
        yield Sample(
            id=f"{name}/{turn}",
            dataset=dataset,
            image=image,
            split=split,
            question=None if captions else question,
            answer=answer,
            modality=modality,
            answer_type=None if captions else _answer_type(item),
        )


def _claim(ids: Iterable[str], *, seen: set[str]) -> None:
    """Add all ids or none. Predictions are joined by id, so a second owner would score the wrong answer."""
    wanted = set(ids)
    if wanted & seen:
        raise SampleError("id is used by an earlier item")
    seen |= wanted


def _image_name(item: dict[str, Any]) -> str:
    image = item.get("image")
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if not image:
        raise SampleError("text only: this version needs an image")
    if isinstance(image, list):
        raise SampleError("several images: this version takes one")
    if not isinstance(image, str):
        raise SampleError("image is not a file name")
    return image


def _turns(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    messages = item.get("conversations")
    if not isinstance(messages, list) or not messages:
        raise SampleError("conversations is missing")
    if len(messages) % 2:
        raise SampleError("conversations has a message without an answer")
    for place in range(0, len(messages), 2):
        yield _message(messages[place], role="human"), _message(messages[place + 1], role="gpt")


def _message(message: Any, *, role: str) -> str:
    if not isinstance(message, dict) or message.get("from") != role:
        raise SampleError("conversations do not alternate between human and gpt")
    value = message.get("value")
    if not isinstance(value, str):
        raise SampleError("a message has no text")
    # The marker says where the image goes; here Prompt decides that. An answer never holds one.
    return (value.replace(_MARKER, "") if role == "human" else value).strip()


def _answer_type(item: dict[str, Any]) -> AnswerType | None:
    value = item.get("answer_type")
    if value is None:
        return None
    if not isinstance(value, str) or value.lower() not in _ANSWER_TYPES:
        raise SampleError("answer_type is none of open, close, closed")
    return _ANSWER_TYPES[value.lower()]
