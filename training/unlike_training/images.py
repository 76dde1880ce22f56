"""Choose the images of datasets that a reference is fitted to and measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medmoe.model.files.digest import file_sha256
from medmoe.training.config import Split
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetImages:
    """The images of one dataset by split. A file that is in an earlier split, here or elsewhere, is left out."""

    dataset: str
    train: tuple[Path, ...]
    val: tuple[Path, ...]
    test: tuple[Path, ...]


def read_images(root: Path, datasets: Sequence[str]) -> tuple[DatasetImages, ...]:
    """Read the images of datasets below `root`.

    Raises DatasetError as `read_dataset` does, DataError when no dataset has training images.
    """
    seen: set[str] = set()
    found: dict[str, dict[Split, tuple[Path, ...]]] = {name: {} for name in datasets}
    splits: tuple[Split, ...] = ("train", "val", "test")
    for split in splits:
        of_split: set[str] = set()
        for name in found:
            images = dict.fromkeys(sample.image for sample in read_dataset(root / name, split=split).samples)
            digests = {image: file_sha256(image) for image in images}
            found[name][split] = tuple(image for image, digest in digests.items() if digest not in seen)
            of_split.update(digests.values())
        seen |= of_split
    if not any(splits["train"] for splits in found.values()):
        raise DataError("none of the datasets has a train split")
    return tuple(DatasetImages(dataset=name, **splits) for name, splits in found.items())
