"""Find held-out images that are training images too, by their bytes and by their pixels.

Both find the same image under another name, not a resized, recompressed or neighbouring one: a lower bound.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.errors import DataError
from medmoe.training.data.leakage.image_digests import ImageDigests
from medmoe.training.data.sample import Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """Describe a held-out image that is a training image too, with all its questions."""

    image: Path
    dataset: str
    samples: tuple[str, ...]
    """Ids of the held-out samples of `dataset` that show it."""
    train_image: Path
    train_dataset: str
    train_sample: str
    """Id of the first training sample that shows the image."""
    same: Literal["bytes", "pixels"]

    def __str__(self) -> str:
        others = f" and {len(self.samples) - 1} more" if len(self.samples) > 1 else ""
        return f"{self.samples[0]}{others} ({self.dataset}) shows {self.train_sample} ({self.train_dataset})"


def shared_images(train: Iterable[Sample], *, test: Sequence[Sample]) -> list[Sample]:
    """Return the test samples, in order, whose image file is byte for byte one of train's."""
    digests = ImageDigests()
    known = {digests.of_bytes(sample.image) for sample in train}
    return [sample for sample in test if digests.of_bytes(sample.image) in known]


def find_leaks(
    train: Iterable[Sample], *, held_out: Iterable[Sample], digests: ImageDigests | None = None, pixels: bool = True
) -> list[Leak]:
    """Return every held-out image that is in train, in the held-out samples' order, whatever dataset either came from.

    `pixels` also compares decoded images, which takes some milliseconds an image. A file that is no image is
    compared by its bytes alone (`manifest` reports it). Raises DataError when a file cannot be read at all.
    """
    digests = digests or ImageDigests()
    trained = _first_by_image(train)
    by_bytes = _index(trained, digests.of_bytes)
    by_pixels = _index(trained, digests.of_pixels) if pixels else {}
    leaks: list[Leak] = []
    groups: dict[tuple[Path, str], list[Sample]] = {}
    for sample in held_out:
        groups.setdefault((sample.image, sample.dataset), []).append(sample)
    for (image, dataset), samples in groups.items():
        same: Literal["bytes", "pixels"] = "bytes"
        found = by_bytes.get(digests.of_bytes(image))
        if found is None and pixels:
            same = "pixels"
            found = by_pixels.get(_or_none(digests.of_pixels, image) or "")
        if found is not None:
            leaks.append(
                Leak(
                    image=image,
                    dataset=dataset,
                    samples=tuple(sample.id for sample in samples),
                    train_image=found.image,
                    train_dataset=found.dataset,
                    train_sample=found.id,
                    same=same,
                )
            )
    return leaks


def _first_by_image(samples: Iterable[Sample]) -> list[Sample]:
    first: dict[Path, Sample] = {}
    for sample in samples:
        first.setdefault(sample.image, sample)
    return list(first.values())


def _index(samples: Iterable[Sample], digest: Callable[[Path], str]) -> dict[str, Sample]:
    index: dict[str, Sample] = {}
    for sample in samples:
        key = _or_none(digest, sample.image)
        if key is not None:
            index.setdefault(key, sample)
    return index


def _or_none(digest: Callable[[Path], str], image: Path) -> str | None:
    try:
        return digest(image)
    except DataError:
        return None


def without_test_images(
    samples: Sequence[Sample], *, of: Sequence[str], root: Path, image_directory: Path | None
) -> list[Sample]:
    """Return `samples` but those that show a test image of the datasets `of` below `root`, by its bytes or its pixels.

    `image_directory` is `read_dataset`'s. Raises DataError for a dataset without a test split, which would leave out
    nothing, and when no sample remains.
    """
    kept = list(samples)
    for name in of:
        test = read_dataset(root / name, split="test", image_directory=image_directory).samples
        if not test:
            raise DataError(f"{name} has no test split whose images could be left out")
        shared = {leak.image for leak in find_leaks(test, held_out=kept)}
        before, kept = len(kept), [sample for sample in kept if sample.image not in shared]
        if not kept:
            raise DataError(f"every sample shows a test image of {name}")
        if shared:
            log.info("%d samples left out: they show %d test images of %s", before - len(kept), len(shared), name)
    return kept
