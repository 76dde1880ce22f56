"""Read images of one's own in any format that `medmoe eval` reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from medmoe.training.config import Split
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.detection import Form, detect
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.own.label_folders import folders_below_labels, read_label_folders
from medmoe.training.data.own.spreadsheet import is_spreadsheet
from medmoe.training.data.own.table import is_table, read_table
from medmoe.training.data.read_result import BadItem, ReadResult, SampleCollector
from medmoe.training.data.sample import Sample

_ACCEPTED = (
    "a folder for each label, a CSV or .jsonl file with the columns image and label or image, question and answer, "
    "or a dataset that `medmoe eval` reads"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnData:
    """Hold the samples as they were read, before images are decoded and repeats are removed."""

    form: str
    """The format, in words."""
    samples: tuple[Sample, ...]
    """`split` is `train` where the source does not say it."""
    bad: tuple[BadItem, ...] = ()
    folders_below_labels: int = 0
    """Number of folders below those of the labels, which may be of patients; their images are no group."""


def read_own_data(path: Path, *, group: str | None = None) -> OwnData:
    """Read `path` in whichever format it is; `group` names the column that holds the patient or the study.

    Raises DatasetError when the path is missing, in no known format, or lacks the column `group`.
    """
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give {_ACCEPTED}")
    try:
        detected = None if path.is_file() and (is_spreadsheet(path) or is_table(path)) else detect(path)
    except DatasetError as error:
        raise DatasetError(f"{error}; give {_ACCEPTED}") from error
    if detected is None or detected.form is Form.TABLE:
        file = path if detected is None else detected.files["train"]
        table = read_table(file, group=group)
        return OwnData(form=table.description, samples=table.samples, bad=table.bad)
    if group is not None:
        raise DatasetError(f"--group names a column of a CSV or .jsonl file, and {path} is none")
    if detected.form is Form.LABEL_FOLDERS:
        read = read_label_folders(path)
    else:
        read = ReadResult()
        splits: tuple[Split, ...] = get_args(Split) if detected.knows_splits else ("train",)
        for split in splits:
            read += read_dataset(path, split=split)
    # A file for each split may count its ids anew.
    collected = SampleCollector()
    for sample in read.samples:
        if sample.kind != "caption":
            collected.add(sample)
    labelled = detected.form is Form.LABEL_FOLDERS
    return OwnData(
        form=str(detected.form),
        samples=collected.result().samples,
        bad=tuple(dict.fromkeys(read.bad)),
        folders_below_labels=folders_below_labels(path, read.samples) if labelled else 0,
    )
