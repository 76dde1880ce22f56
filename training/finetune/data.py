"""Read images of one's own: a folder for each label, CSV, JSON lines, or any dataset that `read_dataset` knows."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from medmoe.training.config import Split
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.detection import detect
from medmoe.training.data.errors import DatasetError, SampleError
from medmoe.training.data.read_result import BadItem, ReadResult
from medmoe.training.data.readers.image_path import find_image
from medmoe.training.data.readers.json_items import Place, first_item, read_json_items
from medmoe.training.data.readers.record_fields import (
    Record,
    closed_by_answer,
    optional_text,
    text_or_number,
    upstream_answer_type,
)
from medmoe.training.data.sample import AnswerType, Sample

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
GROUP_COLUMNS = ("group", "patient", "patient_id", "subject", "subject_id")
_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_ACCEPTED = (
    "a folder for each label, a CSV or .jsonl file with the columns image and label or image, question and answer, "
    "or a dataset that `medmoe eval` reads"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnData:
    """Hold what was read, before images are decoded and repeats are removed."""

    form: str
    """The format, in words."""
    samples: tuple[Sample, ...]
    """`split` is `train` where the source does not say it."""
    bad: tuple[BadItem, ...] = ()
    groups: Mapping[Path, str] = field(default_factory=dict)
    """The value of the group column by image; empty where there is no such column."""


def read_own_data(path: Path, *, group: str | None = None) -> OwnData:
    """Read `path` in whichever format it is; `group` names the column that holds the patient or the study.

    Raises DatasetError when the path is missing, in no known format, or lacks the column `group`.
    """
    if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        return _table(path, list(_csv_rows(path)), group=group)
    if path.suffix == ".jsonl" and path.is_file() and _is_own(first_item(path)):
        return _table(path, list(read_json_items(path)), group=group)
    if group is not None:
        raise DatasetError(f"--group names a column of a CSV or .jsonl file, and {path} is none")
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give {_ACCEPTED}")
    folders = _label_folders(path) if path.is_dir() else {}
    try:
        form = str(detect(path).form)
    except DatasetError as error:
        if folders:
            return _folder_data(path, folders)
        raise DatasetError(f"{error}; give {_ACCEPTED}") from error
    read = ReadResult()
    for split in dict.fromkeys(_SPLITS.values()) if detect(path).knows_splits else ("train",):
        read += read_dataset(path, split=cast(Split, split))
    return OwnData(form=form, samples=tuple(s for s in read.samples if s.kind != "caption"), bad=read.bad)


def _label_folders(directory: Path) -> dict[tuple[Split, str], Path]:
    """Return the folders of `directory` by split and label; a split's folder holds a folder for each label."""
    folders = _visible(directory)
    if folders and all(folder.name.lower() in _SPLITS for folder in folders):
        return {(_SPLITS[f.name.lower()], label.name): label for f in folders for label in _visible(f)}
    return {("train", folder.name): folder for folder in folders}


def _visible(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))


def _folder_data(directory: Path, folders: Mapping[tuple[Split, str], Path]) -> OwnData:
    images: list[tuple[Split, str, Path]] = []
    bad: list[BadItem] = []
    for (split, label), folder in folders.items():
        for place, file in enumerate(sorted(folder.rglob("*")), start=1):
            if not file.is_file() or file.name.startswith("."):
                continue
            if file.suffix.lower() in IMAGE_ENDINGS:
                images.append((split, label.strip(), file.absolute()))
            else:
                name = str(file.relative_to(directory))
                bad.append(BadItem(file=name, place=place, reason=f"no image: its name ends in {file.suffix or name}"))
    labels = _label_set(label for _, label, _ in images)
    samples = [
        Sample(
            id=str(image.relative_to(directory.absolute())),
            dataset=directory.absolute().name,
            image=image,
            split=split,
            answer=label,
            labels=labels,
        )
        for split, label, image in images
    ]
    return OwnData(form="a folder for each label", samples=tuple(samples), bad=tuple(bad))


def _csv_rows(file: Path) -> Iterator[Place]:
    """Yield rows as records whose fields are in lower case; the line's number counts the header."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not UTF-8 text; save it as CSV in UTF-8") from error
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=max(",;\t", key=header.count))
    for row in rows:
        yield rows.line_num, {str(name).strip().lower(): value for name, value in row.items() if name and value}


def _is_own(item: object) -> bool:
    """Return whether a JSON record has this module's fields and is no record of a known dataset format."""
    return isinstance(item, dict) and "image" in item and "task" not in item and bool({"label", "answer"} & set(item))


def _table(file: Path, rows: list[Place], *, group: str | None) -> OwnData:
    columns = {name for _, row in rows if isinstance(row, dict) for name in row}
    if "image" not in columns or not ("label" in columns or {"question", "answer"} <= columns):
        shown = ", ".join(sorted(columns)) or "none"
        raise DatasetError(f"{file} needs the columns image and label, or image, question and answer; it has {shown}")
    if group is not None and group.lower() not in columns:
        raise DatasetError(f"{file} has no column {group}; it has {', '.join(sorted(columns))}")
    column = next((name for name in ([group.lower()] if group else GROUP_COLUMNS) if name in columns), None)
    labels = _label_set(
        str(row["label"]).strip() for _, row in rows if isinstance(row, dict) and not _asks(row) and row.get("label")
    )
    samples: list[Sample] = []
    bad: list[BadItem] = []
    groups: dict[Path, str] = {}
    for place, row in rows:
        try:
            sample = _sample(row, file=file, place=place, labels=labels)
            if column is not None and (name := row.get(column)) is not None:
                groups[sample.image] = str(name)
        except SampleError as error:
            bad.append(BadItem(file=file.name, place=place, reason=str(error)))
        else:
            samples.append(sample)
    form = f"{file.suffix[1:].upper()} of {'questions' if 'question' in columns else 'labels'}"
    return OwnData(
        form=form if column is None else f"{form}, grouped by {column}",
        samples=tuple(samples),
        bad=tuple(bad),
        groups=groups,
    )


def _sample(row: object, *, file: Path, place: int, labels: tuple[str, ...]) -> Sample:
    if isinstance(row, SampleError):
        raise row
    if not isinstance(row, dict):
        raise SampleError("not a JSON object")
    asks = _asks(row)
    answer = text_or_number(row, "answer" if asks else "label")
    return Sample(
        id=f"{file.stem}/{place}",
        dataset=file.stem,
        image=_own_image(text_or_number(row, "image"), directory=file.parent),
        split=_split(row),
        question=text_or_number(row, "question") if asks else None,
        answer=answer,
        labels=() if asks else labels,
        modality=optional_text(row, "modality"),
        answer_type=(upstream_answer_type(row) or _answer_type(answer)) if asks else None,
    )


def _own_image(name: str, *, directory: Path) -> Path:
    """Return the file that `name` means. The user's own file may name images anywhere on this machine."""
    try:
        if (path := directory / name).is_file():
            return path.absolute()
    except (OSError, ValueError) as error:  # a name too long, or one with a NUL
        raise SampleError("image file is missing") from error
    if Path(name).is_absolute():
        raise SampleError("image file is missing")
    return find_image(name, directories=_existing(directory, directory / "images"))


def _asks(row: Record) -> bool:
    return bool(row.get("question"))


def _existing(*directories: Path) -> tuple[Path, ...]:
    return tuple(directory for directory in directories if directory.is_dir())


def _split(row: Record) -> Split:
    named = (optional_text(row, "split") or "train").lower()
    if named not in _SPLITS:
        raise SampleError("split is none of train, val, test")
    return _SPLITS[named]


def _answer_type(answer: str) -> AnswerType:
    return "closed" if closed_by_answer(answer) else "open"


def _label_set(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the labels in alphabetical order. Raises DatasetError for a single one, which leaves nothing to tell
    apart.
    """
    found = tuple(sorted(set(filter(None, labels))))
    if len(found) == 1:
        raise DatasetError("there is one label alone; a classifier needs images of at least two")
    return found
