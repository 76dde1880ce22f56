"""Training without the images of a test split, where a dataset's official splits share theirs."""

import logging
from collections.abc import Sequence
from pathlib import Path

from medmoe.training.data.dataset import read_dataset
from medmoe.training.data.errors import DataError
from medmoe.training.data.leakage.leaks import find_leaks
from medmoe.training.data.sample import Sample

log = logging.getLogger(__name__)


def without_test_images(
    samples: Sequence[Sample], *, of: Sequence[str], root: Path, pictures: Path | None = None
) -> list[Sample]:
    """`samples` but those that show a test image of the datasets `of` below `root`, by its bytes or its pixels.

    `pictures` is `read_dataset`'s. Raises DataError for a dataset without a test split, which would leave out nothing,
    and when no sample remains.
    """
    kept = list(samples)
    for name in of:
        test = read_dataset(root / name, split="test", pictures=pictures).samples
        if not test:
            raise DataError(f"{name} has no test split whose images could be left out")
        shared = {leak.image for leak in find_leaks(test, held_out=kept)}
        before, kept = len(kept), [sample for sample in kept if sample.image not in shared]
        if not kept:
            raise DataError(f"every sample shows a test image of {name}")
        if shared:
            log.info("%d samples left out: they show %d test images of %s", before - len(kept), len(shared), name)
    return kept
