"""Group the samples that a calibration is fitted to by their labels."""

from collections import defaultdict
from collections.abc import Sequence

from medmoe.model.files.calibration_binding import FittedOn
from medmoe.training.config import Split
from medmoe.training.data.sample import Sample


def label_sets(samples: Sequence[Sample]) -> dict[tuple[str, ...], list[Sample]]:
    """Return the classification samples by their set of labels, sorted."""
    found: defaultdict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.kind == "classification":
            found[tuple(sorted(sample.labels))].append(sample)
    return dict(found)


def fitted_on(samples: Sequence[Sample], *, split: Split) -> FittedOn:
    """Return what a file says of the samples that it was fitted to."""
    return FittedOn(datasets=tuple(sorted({sample.dataset for sample in samples})), split=split, n=len(samples))
