"""Read the samples of an evaluation: a split of datasets, their train splits for baselines and leaks, and digests."""

import hashlib
import random
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from medmoe.training.config import Split
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.detection import detect
from medmoe.training.data.errors import DataError
from medmoe.training.data.image import read_rgb
from medmoe.training.data.leakage.image_digests import ImageDigests
from medmoe.training.data.leakage.leaks import shared_images
from medmoe.training.data.sample import Sample
from medmoe.training.data.wordings.phrasing import paraphrased


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """Describe a dataset as it was read."""

    dataset: str
    """Name by which it was asked for."""
    split: Split
    samples: int
    records_sha256: str | None
    """Digest of the file that holds the split, or of names and images of label folders; None where there is neither."""
    images_sha256: str
    """Digest of the SHA-256 of each image that is shown, in the order of their names."""
    problems: str | None
    """Lines that could not become samples, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationData:
    samples: tuple[Sample, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...] = ()
    """Samples of the val split; empty where that split is evaluated."""
    shared: frozenset[str]
    """Ids of samples whose image is byte for byte one of train's, where the training images are not known."""
    files: tuple[DataFile, ...]

    @classmethod
    def read(
        cls,
        root: Path,
        datasets: Sequence[str],
        *,
        split: Split = "test",
        limit: int | None = None,
        seed: int = 0,
        image_directory: Path | None = None,
        trained_on: Container[str] | None = None,
        labels: tuple[str, ...] = (),
    ) -> Self:
        """Read `datasets`, folders or files below `root`, in the forms of `read_dataset`.

        `image_directory` and `labels` are as there. At most `limit` samples of each are kept, drawn by `seed`.
        `trained_on` holds the SHA-256 of the images that the checkpoint was trained on; it then decides alone which
        images count as trained on, not the train splits and the datasets' own marks. Raises DatasetError for what
        cannot be read, DataError when no sample is in the split, an image is missing, a dataset has nothing to state
        labels for, or two have a sample of one id.
        """
        samples: list[Sample] = []
        ids: set[str] = set()
        train: list[Sample] = []
        val: list[Sample] = []
        files: list[DataFile] = []
        digests = ImageDigests()
        read = partial(read_dataset, image_directory=image_directory, labels=labels)
        for name in dict.fromkeys(datasets):
            found = detect(root / name)
            result = read(root / name, split=split)
            if labels and result.samples and not any(sample.labels for sample in result.samples):
                raise DataError(f"{name} has no image with a label; state labels for those that have one")
            drawn = draw(result.samples, limit=limit, seed=seed)
            if repeated := next((sample.id for sample in drawn if sample.id in ids), None):
                # Predictions are joined by id: one of two samples would get the other's.
                raise DataError(
                    f"{name} has the ids of another dataset, {repeated} among them; read one of them at a time, or "
                    "give its records, its file or its folder another name"
                )
            ids |= {sample.id for sample in drawn}
            # A file that does not say its split would give its own samples back as train.
            its_train = read(root / name, split="train").samples if found.knows_splits else ()
            its_val = read(root / name, split="val").samples if found.knows_splits and split != "val" else ()
            files.append(
                DataFile(
                    dataset=name,
                    split=split,
                    samples=len(drawn),
                    records_sha256=_records_sha256(
                        found.files.get(split), [*result.samples, *its_train, *its_val], digests=digests
                    ),
                    images_sha256=_images_sha256(drawn, digests=digests),
                    problems=result.summary() if result.bad else None,
                )
            )
            samples += drawn
            train += its_train
            val += its_val
        if not samples:
            raise DataError(f"none of the datasets has a {split} split")
        if trained_on is not None:
            known = {sample.id for sample in samples if digests.of_bytes(sample.image) in trained_on}
            samples = [replace(sample, image_in_train=sample.id in known) for sample in samples]
            leaked = []
        else:
            # Samples of the train split share their images with themselves, which says nothing.
            leaked = [] if split == "train" else shared_images(train, test=samples)
        return cls(
            samples=tuple(samples),
            train=tuple(train),
            val=tuple(val),
            shared=frozenset(sample.id for sample in leaked),
            files=tuple(files),
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """Return for each dataset with lines that could not become samples a sentence that names them."""
        return tuple(
            f"{file.dataset} ({file.split}): {file.problems}" for file in self.files if file.problems is not None
        )

    def wider_label_sets(self, known: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
        """Return the largest of `known` that holds more labels than samples choose among, by the labels of these.

        Samples whose set of labels is known have none.
        """
        found = {}
        for offered in dict.fromkeys(sample.labels for sample in self.samples if sample.labels):
            wider = [labels for labels in sorted(known) if set(offered) < set(labels)]
            if wider and not any(set(offered) == set(labels) for labels in known):
                found[offered] = max(wider, key=len)
        return found

    def check_images(self) -> None:
        """Decode every image that is asked about. Raises DataError naming the first that cannot be read."""
        bad: list[DataError] = []
        for image in dict.fromkeys(sample.image for sample in self.samples):
            try:
                read_rgb(image)
            except DataError as error:
                bad.append(error)
        if bad:
            raise DataError(f"{bad[0]}" + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""))

    def paraphrased(self, number: int) -> Self:
        """Return the classification samples under wording `number` (1, 2 or 3) of their labels that training never saw.

        Raises DataError when no sample has one.
        """
        samples, train, val = (_paraphrased(part, number - 1) for part in (self.samples, self.train, self.val))
        if not samples:
            raise DataError(f"no label set has a held-out wording {number}")
        kept = {sample.id for sample in samples}
        return replace(self, samples=samples, train=train, val=val, shared=self.shared & kept)


def _paraphrased(samples: Sequence[Sample], number: int) -> tuple[Sample, ...]:
    found = (paraphrased(sample, number) for sample in samples)
    return tuple(sample for sample in found if sample is not None)


def draw(samples: Sequence[Sample], *, limit: int | None, seed: int) -> list[Sample]:
    """Draw at most `limit` samples, in file order: the first lines of a file are often one class or one patient."""
    if limit is None or limit >= len(samples):
        return list(samples)
    places = sorted(random.Random(seed).sample(range(len(samples)), limit))
    return [samples[place] for place in places]


def _records_sha256(source: Path | None, samples: Sequence[Sample], *, digests: ImageDigests) -> str | None:
    if source is None or source.is_file():
        return None if source is None else digests.of_bytes(source)
    # Ids of label folders are paths.
    lines = sorted(f"{digests.of_bytes(sample.image)} {sample.id}" for sample in samples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _images_sha256(samples: Sequence[Sample], *, digests: ImageDigests) -> str:
    whole = hashlib.sha256()
    for image in sorted({sample.image for sample in samples}):
        whole.update(bytes.fromhex(digests.of_bytes(image)))
    return whole.hexdigest()
