"""Read SLAKE 1.0 as its authors publish it (Liu et al. 2021, arXiv 2102.09542).

`train.json`, `validate.json` (`validation.json` in the Hub's edition) and `test.json`, each a JSON list of English and
Chinese questions; images are `imgs/xmlabN/source.jpg`. The English part has 4,919 / 1,053 / 1,061 questions.
"""

from pathlib import Path

from medmoe.training.config import Split
from medmoe.training.data.errors import SampleError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.image_path import find_image, image_folder
from medmoe.training.data.readers.json_items import LeftOut, read_each, read_json_items
from medmoe.training.data.readers.record_fields import Record, optional_text, text, text_or_number, upstream_answer_type
from medmoe.training.data.sample import Sample

IMAGE_FOLDERS = ("imgs", "images")

_LANGUAGES = ("en", "zh")
_MODALITIES = {"CT": "CT", "MRI": "MRI", "X-RAY": "X-ray"}
# English training question 1622 has no answer in the release. It is counted, so that the official file can be used;
# any other blank answer is a damaged file.
_UNANSWERED = "1622"


def read_slake(file: Path, *, split: Split) -> ReadResult:
    """Return the samples of one split's file, with ids `FOLDER/QID`; the folder's name is the dataset's.

    Questions in other languages are left out and counted. Knowledge questions (`base_type` not vqa) are kept:
    upstream trains and scores on them, and `question_type`, which is `content_type`, tells them apart as `KG`.
    Raises DatasetError when the file or the image folder cannot be used.
    """
    images = image_folder(file.parent, names=IMAGE_FOLDERS)
    dataset = file.parent.absolute().name

    def build(record: Record) -> Sample | LeftOut:
        language = text(record, "q_lang").lower()
        if language not in _LANGUAGES:
            raise SampleError("q_lang is neither en nor zh")
        if language != "en":
            return LeftOut(f"language {language}")
        number = text_or_number(record, "qid")
        if number == _UNANSWERED and split == "train" and record.get("answer") == "":
            return LeftOut("no answer in the release")
        answer_type = upstream_answer_type(record)
        if answer_type is None:
            raise SampleError("answer_type is missing")
        return Sample(
            id=f"{dataset}/{number}",
            dataset=dataset,
            image=find_image(text(record, "img_name"), directories=(images,)),
            split=split,
            question=text(record, "question"),
            answer=text_or_number(record, "answer"),
            modality=_modality(record),
            answer_type=answer_type,
            question_type=optional_text(record, "content_type"),
        )

    return read_each(read_json_items(file), file=file.name, build=build)


def _modality(record: Record) -> str:
    modality = text(record, "modality").upper()
    if modality not in _MODALITIES:
        raise SampleError("modality is none of CT, MRI, X-Ray")
    return _MODALITIES[modality]
