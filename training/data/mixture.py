"""Read a recipe's data entries to samples, and account for what is left out."""

import functools
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from medmoe.training.config import DataConfig
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.detection import detect
from medmoe.training.data.errors import DataError
from medmoe.training.data.image import read_rgb
from medmoe.training.data.leakage.leaks import without_test_images
from medmoe.training.data.modality import modality_samples
from medmoe.training.data.protocols import against_protocol
from medmoe.training.data.sample import Sample
from medmoe.training.data.wordings.phrasing import with_wordings

log = logging.getLogger(__name__)
_SHOWN = 5

Teacher = Callable[[Sequence[Sample]], Mapping[str, Mapping[str, float]]]
"""Classification samples to the probability of each label, by sample id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Hold the samples of a recipe's data entries, in the entries' order, and an account of the bad records."""

    samples: tuple[Sample, ...]
    left_out: Mapping[str, Mapping[str, int]]
    """For entries with `bad_records` leave_out: number of bad records by "SPLIT DATASET SOURCE" and reason."""


def read_mixture(
    entries: Sequence[DataConfig],
    *,
    root: Path,
    domains: Sequence[str],
    seed: int,
    image_directory: Path | None = None,
    teacher: Teacher | None = None,
) -> Mixture:
    """Return the samples of every entry.

    `teacher` gives the label probabilities of entries with `distilled`; without one they have their true labels.
    `image_directory` is `read_dataset`'s: where images that come as arrays are written.
    Raises DataError when a dataset is missing, holds bad records that the entry refuses, or has no sample of the kind
    asked for.
    """
    mixture: list[Sample] = []
    left_out: dict[str, Mapping[str, int]] = {}
    for entry in entries:
        name = f"{entry.split} {entry.dataset} {entry.source}"
        samples, bad = _read(entry, root=root, image_directory=image_directory)
        if bad:
            left_out[name] = MappingProxyType(bad)
        if entry.source == "modality":
            samples = modality_samples(
                samples, domains=domains, seed=seed, offer_all=entry.offer_all_domains, modality=entry.modality
            )
        else:
            kind = "caption" if entry.source == "captions" else entry.source
            samples = [sample for sample in samples if sample.kind == kind]
        if not samples:
            raise DataError(f"{entry.dataset} has no {entry.source} samples in its {entry.split} split")
        found = len(samples)
        samples = without_test_images(samples, of=entry.without_images_of, root=root, image_directory=image_directory)
        if entry.balanced:
            samples = _balanced(samples, seed=seed)
        if entry.limit is not None and len(samples) > entry.limit:
            samples = random.Random(f"{seed}/{entry.dataset}/{entry.source}").sample(samples, entry.limit)
        log.debug("%s: %d of %d samples", name, len(samples), found)
        probabilities = teacher(samples) if teacher is not None and entry.distilled else None
        if entry.even:
            samples = _even(samples)
        if entry.distilled:
            samples = _distilled(samples * entry.distilled, probabilities, seed=seed)
        if entry.wordings:
            samples = with_wordings(samples, count=entry.wordings, seed=seed)
        if entry.views > 1:
            samples = [replace(sample, views=entry.views) for sample in samples]
        mixture += samples * entry.repeat
    return Mixture(samples=tuple(mixture), left_out=MappingProxyType(left_out))


def _read(entry: DataConfig, *, root: Path, image_directory: Path | None) -> tuple[list[Sample], dict[str, int]]:
    """Return every usable sample of the entry's file, and the number of others by reason."""
    captions = entry.source == "captions"
    result = read_dataset(
        root / entry.dataset,
        split=entry.split,
        captions=captions,
        image_directory=image_directory,
        paraphrases=entry.paraphrases,
    )
    for reason, count in result.excluded.items():
        log.debug("%s %s: %d left out (%s)", entry.split, entry.dataset, count, reason)
    samples = list(result.samples)
    if entry.source == "vqa":
        line = against_protocol(detect(root / entry.dataset), entry.split, samples=len(samples))
        if line is not None:
            log.info("%s %s: %s", entry.split, entry.dataset, line)
    if result.renamed:
        log.warning("%s %s: %d records have the id of an earlier one", entry.split, entry.dataset, result.renamed)
    if entry.bad_records == "refuse":
        if result.bad:
            raise DataError(f"{entry.dataset} has bad records\n{result.summary()}")
        return samples, {}
    # A figure may also be there and be cut off: without this look the tower would stop at it.
    broken = {sample.id for sample in samples if not _is_image(sample.image)}
    bad = Counter(item.reason for item in result.bad)
    if broken:
        bad["file is no image, or only the beginning of one"] += len(broken)
    shown = [str(item) for item in result.bad[:_SHOWN]] + [f"{name}: no image" for name in sorted(broken)[:_SHOWN]]
    for reason, count in bad.items():
        log.warning("%s %s: %d bad records left out (%s)", entry.split, entry.dataset, count, reason)
    for one in shown:
        log.warning("%s %s: left out, among others: %s", entry.split, entry.dataset, one)
    return [sample for sample in samples if sample.id not in broken], dict(bad)


@functools.cache
def _is_image(image: Path) -> bool:
    """Decode the file, once in a process: the stages of a run read the same entries again."""
    try:
        read_rgb(image)
    except DataError:
        return False
    return True


def _balanced(samples: list[Sample], *, seed: int) -> list[Sample]:
    """Return as many samples of each answer as of the rarest one, in their order."""
    by_answer: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        by_answer.setdefault(sample.answer, []).append(number)
    least = min(map(len, by_answer.values()))
    chosen = {
        number
        for answer, numbers in sorted(by_answer.items())
        for number in random.Random(f"{seed}/{answer}").sample(numbers, least)
    }
    return [sample for number, sample in enumerate(samples) if number in chosen]


def _even(samples: list[Sample]) -> list[Sample]:
    """Return each sample as often as its answer is rarer than the most frequent one, to the nearest whole number."""
    frequent = Counter(sample.answer for sample in samples)
    most = max(frequent.values())
    return [sample for sample in samples for _ in range(round(most / frequent[sample.answer]))]


def _distilled(
    samples: Sequence[Sample], probabilities: Mapping[str, Mapping[str, float]] | None, *, seed: int
) -> list[Sample]:
    """Return the samples with a label drawn for each, or as they are without probabilities."""
    if probabilities is None:
        return list(samples)
    found: list[Sample] = []
    times: Counter[str] = Counter()
    for sample in samples:
        labels = probabilities[sample.id]
        rng = random.Random(f"{seed}/distilled/{sample.id}/{times[sample.id]}")
        times[sample.id] += 1
        (answer,) = rng.choices(list(labels), weights=list(labels.values()))
        found.append(replace(sample, answer=answer))
    return found
