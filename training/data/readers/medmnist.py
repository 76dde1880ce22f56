"""Read MedMNIST v2 and v3 .npz files, 2D and single-label, in any of their sizes (28, 64, 128, 224 pixels)."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medmoe.training.config import Split
from medmoe.training.data.errors import DatasetError, SampleError
from medmoe.training.data.image_store import ImageStore
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.json_items import NumberedItem, read_each
from medmoe.training.data.readers.medmnist_sets import MULTI_LABEL, SETS, MedMNISTSet
from medmoe.training.data.readers.npz_rows import Rows, open_rows
from medmoe.training.data.readers.record_fields import Record
from medmoe.training.data.sample import Sample

_NAME = re.compile(r"(?P<set>[a-z0-9]+?)(_(?P<size>64|128|224))?")


def read_medmnist(file: Path, *, split: Split, image_directory: Path) -> ReadResult:
    """Return one split of `file`, whose name says which set it is (`organcmnist_224.npz`).

    Ids are `NAME/SPLIT/ROW`: image and label are rows of two arrays, and the row number is the only identity that
    MedMNIST gives an image. Each image is written once below `image_directory` (`ImageStore`).
    Raises DatasetError for a damaged file and for sets that are no single-label classification of 2D images.
    """
    known = _set(file)
    store = ImageStore(image_directory)

    def build(record: Record) -> Sample:
        return Sample(
            id=f"{file.stem}/{split}/{record['row']}",
            dataset=file.stem,
            image=store.add(record["pixels"]),
            split=split,
            answer=record["label"],
            labels=known.labels,
            modality=known.modality,
        )

    with open_rows(file, f"{split}_images", f"{split}_labels") as (images, labels):
        _check(images, labels, file=file, split=split)
        items = _items(images, labels, names=known.labels)
        return read_each(items, file=f"{file.name}[{split}]", build=build)


def _set(file: Path) -> MedMNISTSet:
    match = _NAME.fullmatch(file.stem)
    name = match["set"] if match else file.stem
    if name == MULTI_LABEL:
        raise DatasetError(
            f"{file} is multi-label (14 findings, any number in one image); a classification sample has one label. "
            "Ask for the findings one by one instead: records of task vqa with answers yes and no"
        )
    if name not in SETS:
        raise DatasetError(f"{file} is not named after a 2D set of MedMNIST: {', '.join(sorted(SETS))}")
    return SETS[name]


def _check(images: Rows, labels: Rows, *, file: Path, split: Split) -> None:
    if images.dtype != np.uint8 or len(images.shape) not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise DatasetError(f"{file}: {split}_images is not uint8 [N, H, W] or [N, H, W, 3]")
    if labels.dtype.kind not in "ui" or labels.shape[1:] not in ((), (1,)):
        raise DatasetError(f"{file}: {split}_labels is not one whole number an image")
    if images.shape[0] != labels.shape[0]:
        raise DatasetError(f"{file}: {images.shape[0]} images and {labels.shape[0]} labels in {split}")


def _items(images: Rows, labels: Rows, *, names: tuple[str, ...]) -> Iterator[NumberedItem]:
    for row, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        number = int(label.item())
        if 0 <= number < len(names):
            yield row + 1, {"row": row, "pixels": pixels, "label": names[number]}
        else:
            yield row + 1, SampleError(f"label is not below {len(names)}")
