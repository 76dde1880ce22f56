"""Detect the format of a dataset by its files.

A user names a folder, or a file in one where the folder alone does not say enough. In a folder our own
`records.jsonl` / `captions.jsonl` come first, whatever lies beside them; of the published formats there must then be
exactly one:

    VQA-RAD    VQA_RAD Dataset Public.json, or a file for each split (trainset.json, testset.json)
    MedMNIST   NAME.npz
    ROCO       SPLIT/radiology/{captions.txt, SPLITdata.csv}, SPLIT_captions.csv, or captions.txt (all of it train)
    the rest   {train, val, test}.json or .jsonl, or {train, val, test}set.json, told apart by the fields of the first
               item: SLAKE, LLaVA conversations, plain question lists (PathVQA)

Where there is none of them: one CSV, TSV or .jsonl file with the columns image and label, or image, question and
answer; else a folder of images for each label.

Several formats, or several files for one split, are an error that names them: choosing would be guessing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.own.label_folders import beside_splits, holds_label_folders, states_splits
from medmoe.training.data.own.spreadsheet import is_spreadsheet
from medmoe.training.data.own.table import is_table, table_columns
from medmoe.training.data.readers.image_path import comparable
from medmoe.training.data.readers.json_items import first_item
from medmoe.training.data.readers.question_list import IMAGE_FIELDS
from medmoe.training.data.readers.records import CAPTIONS_FILE, RECORDS_FILE
from medmoe.training.data.readers.vqa_rad import PUBLIC_FILE


class Form(StrEnum):
    """Name a format of dataset files."""

    RECORDS = "records"
    LLAVA = "LLaVA conversations"
    VQA_RAD = "VQA-RAD"
    SLAKE = "SLAKE"
    QUESTIONS = "question list"
    ROCO = "ROCO captions"
    MEDMNIST = "MedMNIST"
    TABLE = "table of images"
    LABEL_FOLDERS = "a folder for each label"


@dataclass(frozen=True, slots=True)
class Detected:
    form: Form
    files: Mapping[Split, Path]
    """The file to read for each split that is there; the same one for all where records or arrays tell the split."""
    directory: Path
    """The dataset's folder."""
    by_file: bool = False
    """Whether each split has a file of its own, by its name."""
    knows_splits: bool = True
    """False where a file was named whose split only the user knows."""


_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SPELLINGS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validate", "validation"),
    "test": ("test",),
}
_NAMES = ("{0}", "{0}_qa", "{0}set", "{0}_set", "qas/{0}/{0}_qa")
_LISTS = tuple(f"{name}{ending}" for name in _NAMES for ending in (".json", ".jsonl"))
# The CSV first: it names the images by file, where captions.txt may need dlinks.txt.
_CAPTIONS = (
    "{0}_captions.csv",
    "{0}/radiology/{0}data.csv",
    "{0}/radiology/{1}data.csv",
    "{0}/radiology/captions.txt",
)
_REFUSED = {
    **dict.fromkeys(
        (".pkl", ".pickle"),
        "is a pickle, and reading one runs whatever code it holds; convert it to JSON on a machine where that does "
        'not matter (a list of {"image", "question", "answer"}, saved as train.json, val.json, test.json), or get the '
        "same data as JSON",
    ),
    ".parquet": "is parquet, which needs a package that this project does not carry; export it: images to images/, "
    'and train.jsonl, val.jsonl, test.jsonl with {"image", "question", "answer"} a line',
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "is a spreadsheet that is not read; save it as CSV"),
    **dict.fromkeys((".zip", ".tar", ".7z"), "is an archive; unpack it and name its folder"),
}


def detect(path: Path) -> Detected:
    """Return what `path`, a folder or a file, holds. Raises DatasetError when that is unknown or ambiguous."""
    return _folder(path) if path.is_dir() else _file(path)


def require_splits(path: Path) -> None:
    """Raise DatasetError where the dataset does not state its splits: training and evaluation would read the same."""
    if not detect(path).knows_splits:
        raise DatasetError(
            f"{path} does not state its splits, and all of it would be trained on and evaluated on: add a column split "
            "or folders train, val and test, or let `medmoe finetune` divide it"
        )


def _file(path: Path) -> Detected:
    every = dict.fromkeys(_SPLITS, path)
    if path.is_file() and _is_table(path):
        return Detected(Form.TABLE, every, path.parent, knows_splits="split" in table_columns(path))
    match path.suffix.lower():
        case ".npz":
            return Detected(Form.MEDMNIST, every, path.parent)
        case ".txt" | ".csv":
            return Detected(Form.ROCO, every, path.parent, knows_splits=False)
        case ending if ending in _REFUSED:
            raise DatasetError(f"{path} {_REFUSED[ending]}")
        case ".json":
            # LLaVA's reader reports what is wrong with a file that is in no known form.
            form = _form(path) or Form.LLAVA
            return Detected(form, every, path.parent, knows_splits=form is Form.VQA_RAD)
        case ".jsonl":
            form = _form(path) or Form.RECORDS
            return Detected(form, every, path.parent, knows_splits=form in (Form.RECORDS, Form.VQA_RAD))
    if path.is_file():
        raise DatasetError(f"{path} is a file in no form that is read")
    # A folder that is not there: the reader of records says so.
    return Detected(Form.RECORDS, dict.fromkeys(_SPLITS, path / RECORDS_FILE), path)


def _folder(directory: Path) -> Detected:
    if (directory / RECORDS_FILE).exists() or (directory / CAPTIONS_FILE).exists():
        return Detected(Form.RECORDS, dict.fromkeys(_SPLITS, directory / RECORDS_FILE), directory)
    found = [*_fixed_names(directory), *_question_files(directory), *_caption_files(directory)]
    if len(found) == 1:
        return found[0]
    if found:
        files = sorted({str(file.relative_to(directory)) for one in found for file in one.files.values()})
        raise DatasetError(f"{directory} holds more than one dataset ({', '.join(files)}): name the file itself")
    tables = [file for file in sorted(directory.iterdir()) if file.is_file() and _is_table(file)]
    if len(tables) == 1:
        return _file(tables[0])
    if tables:
        names = ", ".join(file.name for file in tables)
        raise DatasetError(f"{directory} holds more than one table ({names}): name the file itself")
    if holds_label_folders(directory):
        every = dict.fromkeys(_SPLITS, directory)
        return Detected(Form.LABEL_FOLDERS, every, directory, knows_splits=states_splits(directory))
    for ending, reason in _REFUSED.items():
        if file := next(iter(sorted(directory.rglob(f"*{ending}"))), None):
            raise DatasetError(f"{file} {reason}")
    if others := beside_splits(directory):
        raise DatasetError(
            f"{directory} has folders of splits beside {', '.join(others)}: folders of splits stand alone and hold a "
            "folder for each label; move the others away, or rename what is a label and no split"
        )
    raise DatasetError(
        f"{directory} holds no dataset in a known form: neither {RECORDS_FILE} nor files of "
        f"{', '.join(form for form in Form if form is not Form.RECORDS)}"
    )


def _is_table(file: Path) -> bool:
    """Return whether a file is a table; questions in .jsonl without splits are a question list."""
    return is_table(file) and (is_spreadsheet(file) or bool({"label", "split"} & table_columns(file)))


def _fixed_names(directory: Path) -> Iterator[Detected]:
    for file in sorted(directory.glob("*.json")):
        if comparable(file.name) != comparable(PUBLIC_FILE):
            continue
        yield Detected(Form.VQA_RAD, dict.fromkeys(_SPLITS, file), directory)
    for file in sorted(directory.glob("*.npz")):
        yield Detected(Form.MEDMNIST, dict.fromkeys(_SPLITS, file), directory)


def _question_files(directory: Path) -> Iterator[Detected]:
    files = {split: file for split in _SPLITS if (file := _split_file(directory, _LISTS, split=split, one=True))}
    forms: dict[Form, dict[Split, Path]] = {}
    for split, file in files.items():
        form = _form(file)
        if form is None:
            raise DatasetError(f"{file} holds items in no known form; their fields are those of no supported dataset")
        forms.setdefault(form, {})[split] = file
    for form, of_form in forms.items():
        yield Detected(form, of_form, directory, by_file=True)


def _caption_files(directory: Path) -> Iterator[Detected]:
    files = {split: file for split in _SPLITS if (file := _split_file(directory, _CAPTIONS, split=split, one=False))}
    if (captions := directory / "captions.txt").is_file():
        files.setdefault("train", captions)
    if files:
        yield Detected(Form.ROCO, files, directory)


def _split_file(directory: Path, patterns: tuple[str, ...], *, split: Split, one: bool) -> Path | None:
    """Return the first file that is there; with `one`, any other one is an error."""
    names = [pattern.format(spelling, split) for pattern in patterns for spelling in _SPELLINGS[split]]
    found = [directory / name for name in dict.fromkeys(names) if (directory / name).is_file()]
    if one and len(found) > 1:
        names = [str(file.relative_to(directory)) for file in found]
        raise DatasetError(f"{directory} has more than one {split} file ({', '.join(names)}): name the file itself")
    return found[0] if found else None


def _form(file: Path) -> Form | None:
    item = first_item(file)
    fields = set(item) if isinstance(item, dict) else set()
    if fields & {"conversations", "conversatons"}:
        return Form.LLAVA
    if {"image_name", "phrase_type"} <= fields:
        return Form.VQA_RAD
    if {"img_name", "q_lang"} <= fields:
        return Form.SLAKE
    if {"task", "split"} <= fields or {"caption", "split"} <= fields:
        return Form.RECORDS if file.suffix == ".jsonl" else None
    named = fields & set(IMAGE_FIELDS)
    return Form.QUESTIONS if named and {"question", "answer"} <= fields else None
