"""Read a table of images: a CSV, TSV or .jsonl file with labels, or with questions and answers."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from medmoe.model.image_formats.signature import rendered_name
from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError, SampleError
from medmoe.training.data.own.dicom_files import RENDER, has_dicom_suffix, is_dicom
from medmoe.training.data.own.label_folders import label_set, label_text
from medmoe.training.data.own.split_names import SPLIT_NAMES
from medmoe.training.data.own.spreadsheet import is_spreadsheet, read_columns, read_spreadsheet
from medmoe.training.data.read_result import BadItem, ReadResult
from medmoe.training.data.readers.image_path import find_image
from medmoe.training.data.readers.json_items import NumberedItem, first_item, read_json_items
from medmoe.training.data.readers.record_fields import (
    ImageGroups,
    Record,
    answer_type_of,
    group_column,
    optional_text,
    text_or_number,
    upstream_answer_type,
)
from medmoe.training.data.sample import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Hold the samples of a table."""

    samples: tuple[Sample, ...]
    """`split` is `train` where the table does not say it."""
    bad: tuple[BadItem, ...]
    description: str

    def of_split(self, split: Split) -> ReadResult:
        """Return one split; a table that states none is of the split that is asked for."""
        return ReadResult(samples=tuple(s for s in self.samples if s.split == split), bad=self.bad)


def table_columns(path: Path) -> frozenset[str]:
    """Return the column names of a CSV or TSV file in lower case, or the fields of a .jsonl file's first record, null
    ones too; none of another file.

    Raises DatasetError when the file cannot be read.
    """
    if is_spreadsheet(path):
        return frozenset(read_columns(path))
    item = first_item(path) if path.suffix.lower() == ".jsonl" else None
    return frozenset(name.strip().lower() for name in item) if isinstance(item, dict) else frozenset()


def is_table(path: Path) -> bool:
    """Return whether a file has the columns of a table, and not those of our own records. Raises DatasetError."""
    names = table_columns(path)
    return "task" not in names and _has_columns(names)


def read_table(
    file: Path, *, group: str | None = None, split: Split = "train", stated_labels: tuple[str, ...] = ()
) -> Table:
    """Read every row; `group` names the column of the patient or the study, `split` that of rows which state none.

    Image names are relative to the file or to `images/` beside it, or absolute. `stated_labels` are as in `label_set`.
    Raises DatasetError when the file lacks a column, and as `label_set` does.
    """
    columns, rows = _rows(file)
    if not _has_columns(columns):
        shown = ", ".join(sorted(columns)) or "none"
        raise DatasetError(f"{file} needs the columns image and label, or image, question and answer; it has {shown}")
    if group is not None and group.strip().lower() not in columns:
        raise DatasetError(f"{file} has no column {group}; it has {', '.join(sorted(columns))}")
    column = group.strip().lower() if group else group_column(frozenset(columns))
    labels = label_set(
        filter(None, (_label(row) for _, row in rows)),
        source=f"the rows of {file}"
        + next((f" (without line {place}: {row})" for place, row in rows if isinstance(row, SampleError)), ""),
        stated=stated_labels,
    )
    samples: list[Sample] = []
    bad: list[BadItem] = []
    groups = ImageGroups()
    for place, row in rows:
        try:
            sample = _sample(row, file=file, place=place, labels=labels, split=split)
            groups.add(sample.image, row, column=column)
        except SampleError as error:
            bad.append(BadItem(file=file.name, place=place, reason=str(error)))
        else:
            samples.append(sample)
    description = f"{file.suffix[1:].upper()} of {'questions' if 'question' in columns else 'labels'}"
    return Table(
        samples=groups.of(samples),
        bad=tuple(bad),
        description=description if column is None else f"{description}, grouped by {column}",
    )


def _has_columns(names: Collection[str]) -> bool:
    return "image" in names and ("label" in names or {"question", "answer"} <= set(names))


def _rows(file: Path) -> tuple[Collection[str], list[NumberedItem]]:
    """Return the columns, and the rows as records of the cells that hold anything, by column in lower case."""
    if is_spreadsheet(file):
        sheet = read_spreadsheet(file)
        return sheet.columns, list(sheet.rows)
    rows = [(place, _fields(row) if isinstance(row, dict) else row) for place, row in read_json_items(file)]
    return {name for _, row in rows if isinstance(row, dict) for name in row}, rows


def _fields(record: Record) -> Record:
    """Return the fields of a JSON object that hold anything, by their names in lower case."""
    return {
        name.strip().lower(): value
        for name, value in record.items()
        if value is not None and not (isinstance(value, str) and not value.strip())
    }


def _label(row: object) -> str | None:
    """Return the label of a row; None of a question, and where it has none that can be used."""
    if not isinstance(row, dict) or "question" in row:
        return None
    try:
        return label_text(text_or_number(row, "label"))
    except SampleError:
        return None


def _sample(row: object, *, file: Path, place: int, labels: tuple[str, ...], split: Split) -> Sample:
    if isinstance(row, SampleError):
        raise row
    if not isinstance(row, dict):
        raise SampleError("not a JSON object")
    asks = "question" in row
    answer = text_or_number(row, "answer" if asks else "label")
    return Sample(
        id=f"{file.stem}/{place}",
        dataset=file.stem,
        image=_image(text_or_number(row, "image"), directory=file.parent),
        split=_split(row, split),
        question=text_or_number(row, "question") if asks else None,
        answer=answer if asks else label_text(answer),
        labels=() if asks else labels,
        modality=optional_text(row, "modality"),
        answer_type=(upstream_answer_type(row) or answer_type_of(answer)) if asks else None,
    )


def _image(name: str, *, directory: Path) -> Path:
    """Return the file that `name` means: of a DICOM file the PNG that `medmoe render` wrote of it.

    The user's own file may name images anywhere on this machine. Raises SampleError.
    """
    try:
        portable = name if (directory / name).is_file() else name.replace("\\", "/")
        path = directory / portable
        folders = [directory, directory / "images"]
        if path.is_file() and not is_dicom(path):
            return path.absolute()
        if Path(portable).is_absolute() or ".." in Path(portable).parts:
            folders, portable = [path.parent], path.name
        unrendered = any((path := folder / portable).is_file() and is_dicom(path) for folder in folders)
        if unrendered or has_dicom_suffix(portable):
            portable = rendered_name(portable)
            for folder in folders:
                if (path := folder / portable).is_file():
                    return path.absolute()
        folders = [folder for folder in folders if folder.is_dir()]
    except (OSError, ValueError) as error:  # a name too long, or one with a NUL
        raise SampleError("image file is missing") from error
    if unrendered:
        raise SampleError(RENDER)
    return find_image(portable, directories=folders)


def _split(row: Record, default: Split) -> Split:
    named = (optional_text(row, "split") or default).lower()
    if named not in SPLIT_NAMES:
        raise SampleError("split is none of train, val, test")
    return SPLIT_NAMES[named]
