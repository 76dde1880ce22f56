"""From a recipe's data entries to samples: reads each dataset folder, limits it, and accounts for what is left out."""

import logging
import random
from collections.abc import Sequence
from pathlib import Path

from medmoe.training.config import DataConfig
from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.errors import DataError
from medmoe.training.data.modality import modality_samples
from medmoe.training.data.sample import Sample

log = logging.getLogger(__name__)


def load_mixture(
    entries: Sequence[DataConfig],
    *,
    root: Path,
    domains: Sequence[str],
    seed: int,
    pictures: Path | None = None,
) -> list[Sample]:
    """The samples of every entry, in the entries' order.

    `pictures` is `read_dataset`'s: where images that come as arrays are written.
    Raises DataError when a dataset is missing, holds bad records, or has no sample of the kind asked for.
    """
    mixture: list[Sample] = []
    for entry in entries:
        captions = entry.source == "captions"
        result = read_dataset(root / entry.dataset, split=entry.split, captions=captions, pictures=pictures)
        if result.bad:
            raise DataError(f"{entry.dataset} has bad records\n{result.summary()}")
        samples = list(result.samples)
        if entry.source == "modality":
            samples = modality_samples(samples, domains=domains, seed=seed, offer_all=entry.offer_all_domains)
        else:
            kind = "caption" if captions else entry.source
            samples = [sample for sample in samples if sample.kind == kind]
        if not samples:
            raise DataError(f"{entry.dataset} has no {entry.source} samples in its {entry.split} split")
        found = len(samples)
        if entry.balanced:
            samples = _balanced(samples, seed=seed)
        if entry.limit is not None and len(samples) > entry.limit:
            samples = random.Random(f"{seed}/{entry.dataset}/{entry.source}").sample(samples, entry.limit)
        for reason, count in result.excluded.items():
            log.info("%s %s: %d left out (%s)", entry.split, entry.dataset, count, reason)
        log.info("%s %s %s: %d of %d samples", entry.split, entry.dataset, entry.source, len(samples), found)
        mixture += samples * entry.repeat
    return mixture


def _balanced(samples: list[Sample], *, seed: int) -> list[Sample]:
    """As many samples of each answer as of the rarest one, in their order."""
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
