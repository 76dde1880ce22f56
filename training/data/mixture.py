"""From a recipe's data entries to samples: reads each dataset folder, limits it, and accounts for what is left out."""

import logging
import random
from collections.abc import Sequence
from pathlib import Path

from medmoe.training.config import DataConfig
from medmoe.training.data.errors import DataError
from medmoe.training.data.llava import read_llava
from medmoe.training.data.modality import modality_samples
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.records import read_captions, read_records
from medmoe.training.data.sample import Sample

log = logging.getLogger(__name__)


def load_mixture(entries: Sequence[DataConfig], *, root: Path, domains: Sequence[str], seed: int) -> list[Sample]:
    """The samples of every entry, in the entries' order.

    Raises DataError when a dataset is missing, holds bad records, or has no sample of the kind asked for.
    """
    mixture: list[Sample] = []
    for entry in entries:
        result = _read(entry, root=root)
        if result.bad:
            raise DataError(f"{entry.dataset} has bad records\n{result.summary()}")
        samples = list(result.samples)
        if entry.source == "modality":
            samples = modality_samples(samples, domains=domains, seed=seed)
        elif entry.source != "captions":
            samples = [sample for sample in samples if sample.kind == entry.source]
        if not samples:
            raise DataError(f"{entry.dataset} has no {entry.source} samples in its {entry.split} split")
        found = len(samples)
        if entry.limit is not None and found > entry.limit:
            samples = random.Random(f"{seed}/{entry.dataset}/{entry.source}").sample(samples, entry.limit)
        log.info("%s %s %s: %d of %d samples", entry.split, entry.dataset, entry.source, len(samples), found)
        mixture += samples
    return mixture


def _read(entry: DataConfig, *, root: Path) -> ReadResult:
    path = root / entry.dataset
    if path.suffix == ".json":
        captions = entry.source == "captions"
        return read_llava(path, images=path.parent, dataset=path.stem, split=entry.split, captions=captions)
    read = read_captions if entry.source == "captions" else read_records
    return read(path, splits=(entry.split,))
