"""Read ROCO-style captions: a text or CSV file of ids and captions, and a folder of images (Pelka et al. 2018).

Three published shapes: `captions.txt` (ID, a tab, the caption), `traindata.csv` (columns id, name, caption) and
ROCOv2's `train_captions.csv` (columns ID, Caption).
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError, SampleError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.image_path import find_image
from medmoe.training.data.readers.json_items import LeftOut, NumberedItem, read_each
from medmoe.training.data.readers.record_fields import Record, optional_text, text
from medmoe.training.data.sample import Sample

LINKS_FILE = "dlinks.txt"
_FOLDERS = ("images", "train", "valid", "validation", "test")


def read_roco(file: Path, *, split: Split, dataset: str) -> ReadResult:
    """Return the caption samples of one split's `file`, with ids `DATASET/ID`.

    An image is named by its line (`name`), else by `dlinks.txt` beside the file (the name under which ROCO's own
    download script saves what belongs to an id), else it is the id with an image's ending. It lies in `images/` beside
    the file, or as ROCOv2 has it in `train/`, `valid/` or `test/`.
    Raises DatasetError when the file is not readable text, or a .csv has no caption column.
    """
    links = _links(file.parent / LINKS_FILE)
    directories = tuple(path for name in _FOLDERS if (path := file.parent / name).is_dir())
    if not directories:
        raise DatasetError(f"{file.parent} has no image folder: wanted images/")

    def build(record: Record) -> Sample | LeftOut:
        number = text(record, "id")
        return Sample(
            id=f"{dataset}/{number}",
            dataset=dataset,
            image=find_image(optional_text(record, "name") or links.get(number, number), directories=directories),
            split=split,
            answer=text(record, "caption"),
        )

    return read_each(_rows(file) if file.suffix == ".csv" else _lines(file), file=file.name, build=build)


def _lines(file: Path) -> Iterator[NumberedItem]:
    for number, line in enumerate(_read(file).split("\n"), start=1):
        if not line.strip():
            continue
        identifier, tab, caption = line.partition("\t")
        yield number, {"id": identifier, "caption": caption} if tab else SampleError("no tab between id and caption")


def _rows(file: Path) -> Iterator[NumberedItem]:
    reader = csv.DictReader(io.StringIO(_read(file), newline=""), strict=True)
    try:
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        if not {"id", "caption"} <= set(reader.fieldnames):
            raise DatasetError(f"{file} has no columns id and caption")
        for row in reader:
            # DictReader files what a row has too much under None, and fills up with None what it lacks.
            # line_num is the row's last line: a caption may hold line breaks inside quotes.
            if None in row or None in row.values():
                yield reader.line_num, SampleError("not as many columns as the header has")
            else:
                yield reader.line_num, {name: value for name, value in row.items() if value.strip()}
    except csv.Error as error:
        raise DatasetError(f"{file}:{reader.line_num} is not CSV: {error}") from error


def _links(file: Path) -> dict[str, str]:
    """Map ids to file names: the archive's name, an underscore, the image's name, as ROCO's `fetch.py` saves it."""
    links: dict[str, str] = {}
    if not file.is_file():
        return links
    for line in _read(file).split("\n"):
        identifier, _, command = line.partition("\t")
        parts = command.strip().split()
        archive = next((part for part in parts if part.endswith(".tar.gz")), None)
        if archive is not None:
            links[identifier.strip()] = f"{archive.rsplit('/', 1)[-1].removesuffix('.tar.gz')}_{parts[-1]}"
    return links


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not UTF-8 text") from error
