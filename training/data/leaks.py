"""Which test images a model has already been trained on, by their bytes."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from medmoe.training.data.sample import Sample


def shared_images(train: Iterable[Sample], *, test: Sequence[Sample]) -> list[Sample]:
    """Test samples, in order, whose image file is byte for byte one of train's.

    Finds the same file under another name, not a re-encoded or neighbouring picture: it is a lower bound.
    """
    digests: dict[Path, bytes] = {}
    known = {_digest(sample.image, digests=digests) for sample in train}
    return [sample for sample in test if _digest(sample.image, digests=digests) in known]


def _digest(path: Path, *, digests: dict[Path, bytes]) -> bytes:
    # A VQA set asks about ten questions an image: each file is read once.
    if path not in digests:
        with path.open("rb") as file:
            digests[path] = hashlib.file_digest(file, "sha256").digest()
    return digests[path]
