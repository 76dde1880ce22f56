"""Read any dataset by its path: detect the format and call its reader."""

from pathlib import Path

from medmoe.training.config import Split
from medmoe.training.data.detection import Detected, Form, detect
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.own.label_folders import read_label_folders
from medmoe.training.data.own.table import read_table
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.llava import read_llava
from medmoe.training.data.readers.medmnist import read_medmnist
from medmoe.training.data.readers.question_list import read_question_list
from medmoe.training.data.readers.records import CAPTIONS_FILE, RECORDS_FILE, read_captions, read_records
from medmoe.training.data.readers.roco import read_roco
from medmoe.training.data.readers.slake import read_slake
from medmoe.training.data.readers.vqa_rad import read_vqa_rad

DATA_HELP = "Folder that holds one folder for each dataset."
"""Help of the option --data of every command."""


def read_dataset(
    path: Path,
    *,
    split: Split,
    captions: bool = False,
    image_directory: Path | None = None,
    paraphrases: bool = False,
    labels: tuple[str, ...] = (),
) -> ReadResult:
    """Return one split of the dataset at `path`, a folder or a file (`detection` says which); empty when it has no such
    split.

    A file that holds one split without saying which (conversations, SLAKE, question lists, captions) is taken to be
    the split asked for. `captions` asks our own folders for their captions and LLaVA files for answers alone; the
    other formats have one kind of sample. `image_directory`: where the images of formats that hold pixels instead of
    files (MedMNIST) are written as PNGs; None is a folder beside the file, named like it. `paraphrases`: also VQA-RAD's
    other wordings of each training question. `labels`: what to choose among where the images of a table or of label
    folders may have only some of them.
    Raises DatasetError as the format's reader does, when the format is unknown or ambiguous, and when it has no
    paraphrases or no place for `labels`.
    """
    found = detect(path)
    file = found.files.get(split)
    if labels and found.form not in (Form.TABLE, Form.LABEL_FOLDERS):
        raise DatasetError(f"{path} ({found.form}) states its labels itself; name them for tables and label folders")
    if paraphrases and found.form is not Form.VQA_RAD:
        raise DatasetError(f"{path} ({found.form}) has no paraphrases of its questions")
    if file is None:
        return ReadResult()
    return _read(
        found,
        file,
        split=split,
        captions=captions,
        image_directory=image_directory,
        paraphrases=paraphrases,
        labels=labels,
    )


def _read(
    found: Detected,
    file: Path,
    *,
    split: Split,
    captions: bool,
    image_directory: Path | None,
    paraphrases: bool,
    labels: tuple[str, ...],
) -> ReadResult:
    match found.form:
        case Form.RECORDS:
            if captions:
                name = CAPTIONS_FILE if file.name == RECORDS_FILE else file.name
                return read_captions(found.directory, split=split, file=name)
            return read_records(found.directory, split=split, file=file.name)
        case Form.LLAVA:
            images = found.directory / "images" if found.knows_splits else file.parent
            images = images if images.is_dir() else file.parent
            name = found.directory.absolute().name if found.knows_splits else file.stem
            return read_llava(file, images=images, dataset=name, split=split, captions=captions)
        case Form.VQA_RAD:
            others = {path: named for named, path in found.files.items() if path != file}
            named = split if others or found.by_file else None
            return read_vqa_rad(file, split=split, paraphrases=paraphrases, named=named, others=others)
        case Form.SLAKE:
            return read_slake(file, split=split)
        case Form.QUESTIONS:
            return read_question_list(file, split=split, directory=found.directory)
        case Form.ROCO:
            return read_roco(file, split=split, dataset=found.directory.absolute().name)
        case Form.TABLE:
            unstated: Split = "train" if found.knows_splits else split
            return read_table(file, split=unstated, stated_labels=labels).of_split(split)
        case Form.LABEL_FOLDERS:
            return read_label_folders(file, split=split, stated_labels=labels)
        case Form.MEDMNIST:
            return read_medmnist(file, split=split, image_directory=image_directory or file.with_suffix(".images"))
