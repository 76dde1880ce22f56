"""Read LLaVA conversation JSON, the format in which LLaVA-Med and Med-MoE publish their data.

A file is one list of `{"id", "image", "conversations": [{"from", "value"}, ...]}`, with `answer_type` and `modality`
where upstream's evaluator or router training needs them. LLaVA-Med adds `pair_id` and `domain` ({"chest_xray": true,
"mri": false, ...}), and spells `conversations` without its last i in some files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmoe.training.config import Split
from medmoe.training.data.errors import SampleError
from medmoe.training.data.read_result import BadItem, ReadResult, SampleCollector
from medmoe.training.data.readers.image_path import image_path
from medmoe.training.data.readers.json_items import read_json_items
from medmoe.training.data.readers.record_fields import record_id, text_or_number, upstream_answer_type
from medmoe.training.data.sample import Sample

_MARKER = "<image>"
_TURNS = ("conversations", "conversatons")
_DOMAINS = {"chest_xray": "X-ray", "mri": "MRI", "ct_scan": "CT", "histology": "pathology", "gross": "pathology"}


def read_llava(file: Path, *, images: Path, dataset: str, split: Split, captions: bool = False) -> ReadResult:
    """Read a sample for each (human, gpt) pair of `file`, with id `ID/TURN` (from 0); images lie below `images`.

    Later turns do not see the earlier ones: each becomes a question of its own, since that is what the service is
    asked, one question about one image; a question that leans on an earlier answer ("and on the other side?") stays in
    and is harder for it. `captions` drops the questions, as upstream's `plain` template does in the alignment stage.
    An item of which any part is unusable is reported whole, text-only items and items of several images among them:
    this version answers about exactly one image. ID is `pair_id` where `id` is missing; modality is `modality`, or
    what `domain` says when that is one thing.
    Raises DatasetError when the file cannot be read or is not a JSON list.
    """
    collected = SampleCollector()
    for number, item in read_json_items(file):
        try:
            if isinstance(item, SampleError):
                raise item
            found = list(_samples(item, images=images, dataset=dataset, split=split, captions=captions))
        except SampleError as error:
            collected.bad.append(BadItem(file=file.name, place=number, reason=str(error), id=record_id(item)))
        else:
            for sample in found:
                collected.add(sample)
    return collected.result()


def _samples(item: Any, *, images: Path, dataset: str, split: Split, captions: bool) -> Iterator[Sample]:
    if not isinstance(item, dict):
        raise SampleError("not a JSON object")
    name = text_or_number(item, "pair_id" if item.get("id") is None and "pair_id" in item else "id")
    image = image_path(_image_name(item), directory=images)
    modality = _modality(item)
    for turn, (question, answer) in enumerate(_turns(item)):
        yield Sample(
            id=f"{name}/{turn}",
            dataset=dataset,
            image=image,
            split=split,
            question=None if captions else question,
            answer=answer,
            modality=modality,
            answer_type=None if captions else upstream_answer_type(item),
        )


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
    spellings = [name for name in _TURNS if name in item]
    if len(spellings) > 1:
        raise SampleError(f"both {' and '.join(spellings)}: which one counts?")
    messages = item[spellings[0]] if spellings else None
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


def _modality(item: dict[str, Any]) -> str | None:
    modality = item.get("modality")
    if modality is not None and not isinstance(modality, str):
        raise SampleError("modality is not text")
    domain = item.get("domain")
    if modality is not None or not isinstance(domain, dict):
        return modality
    # A figure of several panels is of several domains: it is not one modality.
    named = {_DOMAINS.get(name) for name, shown in domain.items() if shown is True}
    return named.pop() if len(named) == 1 else None
