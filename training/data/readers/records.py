"""Read a dataset folder: `records.jsonl` (VQA or classification) and `captions.jsonl`, images beside them.

One JSON object a line; the image path is relative to the folder, whose name becomes the dataset's name. `group` names
the patient, the study or the slide.
"""

from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from medmoe.training.config import Split
from medmoe.training.data.errors import SampleError
from medmoe.training.data.read_result import REPEAT, ReadResult
from medmoe.training.data.readers.image_path import image_path
from medmoe.training.data.readers.json_items import LeftOut, read_each, read_json_items
from medmoe.training.data.readers.record_fields import (
    Record,
    optional_text,
    text,
    text_or_number,
    upstream_answer_type,
)
from medmoe.training.data.sample import AnswerType, Domain, Sample

RECORDS_FILE = "records.jsonl"
CAPTIONS_FILE = "captions.jsonl"
_UNKNOWN = "unknown"


def read_records(directory: Path, *, split: Split, file: str = RECORDS_FILE) -> ReadResult:
    """Return the samples of `directory/file` of one split, and every line that could not become one.

    Training records flagged `repeat` (doubles of another record, as VQA-RAD has them) are left out and counted.
    Raises DatasetError when the file cannot be read.
    """
    return _read(directory, split=split, file=file, build=_record)


def read_captions(directory: Path, *, split: Split, file: str) -> ReadResult:
    """Return the caption samples of `directory/file`, as `read_records`; ids are `DATASET/caption/IMAGE`."""
    return _read(directory, split=split, file=file, build=_caption)


def _read(directory: Path, *, split: Split, file: str, build: Callable[[Record, Path], Sample]) -> ReadResult:
    def wanted(record: Record) -> Sample | LeftOut:
        if (found := _split(record)) != split:
            return LeftOut(f"split {found}")
        if split == "train" and record.get("repeat") is True:
            return LeftOut(REPEAT)
        return build(record, directory)

    return read_each(read_json_items(directory / file), file=file, build=wanted)


def _record(record: Record, directory: Path) -> Sample:
    task = text(record, "task")
    if task not in ("vqa", "classification"):
        raise SampleError("task is neither vqa nor classification")
    vqa = task == "vqa"
    return Sample(
        id=text_or_number(record, "id"),
        dataset=directory.absolute().name,
        image=image_path(text(record, "image"), directory=directory),
        split=_split(record),
        question=text(record, "question") if vqa else None,
        answer=text(record, "answer" if vqa else "label"),
        labels=() if vqa else _labels(record),
        modality=_modality(record),
        answer_type=_answer_type(record) if vqa else None,
        question_type=optional_text(record, "question_type"),
        domain=_domain(record),
        image_in_train=record.get("image_in_train") is True,
        near_twin_in_train=record.get("near_twin_in_train") is True,
    )


def _caption(record: Record, directory: Path) -> Sample:
    image = text(record, "image")
    dataset = directory.absolute().name
    return Sample(
        id=f"{dataset}/caption/{image}",
        dataset=dataset,
        image=image_path(image, directory=directory),
        split=_split(record),
        answer=text(record, "caption"),
        modality=_modality(record),
        domain=_domain(record),
    )


def _split(record: Record) -> Split:
    split = text(record, "split")
    if split not in get_args(Split):
        raise SampleError("split is none of train, val, test")
    return cast(Split, split)


def _answer_type(record: Record) -> AnswerType:
    answer_type = upstream_answer_type(record)
    if answer_type is None:
        raise SampleError("answer_type is neither open nor closed")
    return answer_type


def _domain(record: Record) -> Domain:
    # Medical datasets name their own field there (radiology, histopathology); all of them are medical here.
    return "general" if optional_text(record, "domain") == "general" else "medical"


def _modality(record: Record) -> str | None:
    # "unknown" as a label would teach the router a modality that does not exist.
    modality = optional_text(record, "modality")
    return None if modality == _UNKNOWN else modality


def _labels(record: Record) -> tuple[str, ...]:
    labels = record.get("label_set")
    if labels is None:
        raise SampleError("label_set is missing")
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise SampleError("label_set is not a list of labels")
    return tuple(label.strip() for label in labels)
