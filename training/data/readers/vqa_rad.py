"""Read VQA-RAD as its authors publish it (Lau et al. 2018, OSF project 89kps).

One JSON list, `VQA_RAD Dataset Public.json`, with the images in a folder beside it. `phrase_type` holds the official
split: 1,797 questions to train on and 451 to test on; there is no validation split. Copies of it have a file for each
split, `trainset.json` and `testset.json`, whose names then tell the split.

A record also holds other wordings of its question: `question_rephrase`, which mostly is the question of the record it
is linked to by `qid_linked_id`, and `question_frame`, a template filled in (1,267 in all, by the paper). The 3,064
training questions that others report are 1,797 + 1,267: framed wordings of test questions among them. Here they come
on demand, and only those of training questions that no test question is linked to.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

from medmoe.training.config import Split
from medmoe.training.data.errors import SampleError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.image_path import find_image, image_folder
from medmoe.training.data.readers.json_items import LeftOut, NumberedItem, read_each, read_json_items
from medmoe.training.data.readers.record_fields import Record, optional_text, text, text_or_number, upstream_answer_type
from medmoe.training.data.sample import Sample

PUBLIC_FILE = "VQA_RAD Dataset Public.json"
IMAGE_FOLDERS = ("VQA_RAD Image Folder", "images", "imgs")

_NAMED = " split of the file"
"""Field that no record has: the split that the file's name tells."""
_WORDINGS = {"rephrase": "question_rephrase", "frame": "question_frame"}
# What the release writes where there is nothing.
_NOTHING = ("", "NULL")
_SPLITS: dict[str, Split] = {"freeform": "train", "para": "train", "test_freeform": "test", "test_para": "test"}
# By the dataset's design; a head is CT or MRI, which no field tells.
_MODALITIES = {"CHEST": "X-ray", "ABD": "CT"}
# Slips of the keyboard for ATTRIB and PRES.
_MISSPELT = {"ATRIB": "ATTRIB", "PRSE": "PRES"}


def read_vqa_rad(
    file: Path,
    *,
    split: Split,
    paraphrases: bool = False,
    named: Split | None = None,
    others: Mapping[Path, Split] = MappingProxyType({}),
) -> ReadResult:
    """Return the samples of one split, with ids `FOLDER/QID`; the folder's name is the dataset's.

    Train and test share images: such test samples are marked `image_in_train`. Training questions that repeat an
    earlier one or a test question, with the same answer about the same image, are left out and counted (4 in the
    release). Values of `question_type` come sorted and joined by commas.

    `paraphrases`: after them also the other wordings of the training questions that are kept, with ids
    `FOLDER/QID/rephrase` and `FOLDER/QID/frame`; repeats, and wordings of anything that is tested, are left out and
    counted.
    `named`: the split of a file whose name tells it; `others`: the files of the other splits, by which repeats and
    shared images are known.
    Raises DatasetError when a file or the image folder cannot be used.
    """
    items = _read(file, named)
    known = [*items, *(place for other, its_split in others.items() for place in _read(other, its_split))]
    images = image_folder(file.parent, names=IMAGE_FOLDERS)
    build = _builder(known, file=file, images=images, split=split)
    result = read_each(items, file=file.name, build=build)
    if not paraphrases or split != "train":
        return result
    kept = {sample.id for sample in result.samples}
    wordings = list(_wordings(items, kept=kept, dataset=file.parent.absolute().name))
    return result + read_each(wordings, file=file.name, build=_without_test_wordings(build, items=known))


def _read(file: Path, named: Split | None) -> list[NumberedItem]:
    """Return the items of a file, with the split that its name tells."""
    items = list(read_json_items(file))
    if named is None:
        return items
    return [(place, item | {_NAMED: named} if isinstance(item, dict) else item) for place, item in items]


def _wordings(items: list[NumberedItem], *, kept: Collection[str], dataset: str) -> Iterator[NumberedItem]:
    """Return a record for each other wording of the training questions that were `kept`."""
    for place, item in items:
        if not isinstance(item, dict) or not _is_of(item, "train") or f"{dataset}/{_qid(item)}" not in kept:
            continue
        for name, field in _WORDINGS.items():
            wording = item.get(field)
            if wording is None or (isinstance(wording, str) and wording.strip().upper() in _NOTHING):
                continue
            yield place, item | {"question": wording, "qid": f"{_qid(item)}/{name}"}


def _without_test_wordings(
    build: Callable[[Record], Sample | LeftOut], *, items: list[NumberedItem]
) -> Callable[[Record], Sample | LeftOut]:
    """Return `build` without wordings of test questions, which are known by their link, or by question and image."""
    tested = [item for _, item in items if isinstance(item, dict) and _is_of(item, "test")]
    links = {_link(record) for record in tested} - {None}
    known = {
        (str(record.get("image_name")).strip().lower(), str(record.get(field)).strip().lower())
        for record in tested
        for field in ("question", *_WORDINGS.values())
    }

    def guarded(record: Record) -> Sample | LeftOut:
        if _link(record) in links or _content(record)[:2] in known:
            return LeftOut("wording of a test question")
        return build(record)

    return guarded


def _builder(
    items: list[NumberedItem], *, file: Path, images: Path, split: Split
) -> Callable[[Record], Sample | LeftOut]:
    """Return the function that makes a sample of a record; `items` are those of all splits."""
    dataset = file.parent.absolute().name
    records = [item for _, item in items if isinstance(item, dict)]
    trained = {str(record.get("image_name")) for record in records if _is_of(record, "train")}
    # A repeat of a test question leaves training wherever it stands; of a training question, the later one does.
    taken = {_content(record) for record in records if _is_of(record, "test")}

    def build(record: Record) -> Sample | LeftOut:
        if (found := _split(record)) != split:
            return LeftOut(f"split {found}")
        name = text(record, "image_name")
        answer_type = upstream_answer_type(record)
        if answer_type is None:
            raise SampleError("answer_type is missing")
        organ = optional_text(record, "image_organ")
        sample = Sample(
            id=f"{dataset}/{text_or_number(record, 'qid')}",
            dataset=dataset,
            image=find_image(name, directories=(images,)),
            split=split,
            question=text(record, "question"),
            answer=text_or_number(record, "answer"),
            modality=_MODALITIES.get((organ or "").upper()),
            answer_type=answer_type,
            question_type=_question_type(record),
            image_in_train=split == "test" and name in trained,
        )
        if split == "train":
            if _content(record) in taken:
                return LeftOut("repeat of another record")
            taken.add(_content(record))
        return sample

    return build


def _split(record: Record) -> Split:
    if _NAMED in record:
        return cast(Split, record[_NAMED])
    phrase = text(record, "phrase_type").lower()
    if phrase not in _SPLITS:
        raise SampleError(f"phrase_type is none of {', '.join(_SPLITS)}")
    return _SPLITS[phrase]


def _is_of(record: Record, split: Split) -> bool:
    try:
        return _split(record) == split
    except SampleError:
        return False  # read_each reports it


def _qid(record: Record) -> str:
    return _number(record, "qid")


def _link(record: Record) -> str | None:
    link = _number(record, "qid_linked_id") if record.get("qid_linked_id") else ""
    return None if link.upper() in _NOTHING else link


def _number(record: Record, field: str) -> str:
    try:
        return text_or_number(record, field)
    except SampleError:
        return str(record.get(field)).strip()


def _content(record: Record) -> tuple[str, ...]:
    return tuple(str(record.get(field)).strip().lower() for field in ("image_name", "question", "answer"))


def _question_type(record: Record) -> str | None:
    value = optional_text(record, "question_type")
    if value is None:
        return None
    kinds = {kind.strip().upper() for kind in value.split(",") if kind.strip()}
    return ",".join(sorted(_MISSPELT.get(kind, kind) for kind in kinds)) or None
