"""Build a manifest of a run's splits: two runs with the same manifest saw the same data.

Ids (some of which are made of file names) and hashes only: neither questions and answers nor paths, so that a manifest
may travel with a checkpoint.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from medmoe.training.config import Split
from medmoe.training.data.errors import DataError
from medmoe.training.data.leakage.image_digests import ImageDigests
from medmoe.training.data.leakage.leaks import Leak, find_leaks
from medmoe.training.data.sample import Sample

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Hold samples by split with their images' hashes, unreadable images, repeated ids, and leaks."""

    splits: dict[Split, dict[str, Any]]
    unreadable: tuple[str, ...]
    """Ids of samples whose file is missing, no image, or cut off."""
    repeated_ids: tuple[str, ...]
    """Ids (DATASET: ID) with more than one sample: predictions could not be joined to them."""
    leaks: tuple[Leak, ...]
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))
    """`Mixture.left_out`: how many bad records were left out of what, by reason."""

    def to_json(self) -> str:
        """Return JSON with sorted keys and images by hash: the same data give the same text."""
        return (
            json.dumps(
                {
                    "version": 1,
                    "splits": self.splits,
                    "unreadable": self.unreadable,
                    "repeated_ids": self.repeated_ids,
                    "left_out": {name: dict(reasons) for name, reasons in self.left_out.items()},
                    "leaks": [
                        {
                            "dataset": leak.dataset,
                            "samples": leak.samples,
                            "train_dataset": leak.train_dataset,
                            "train_sample": leak.train_sample,
                            "same": leak.same,
                        }
                        for leak in self.leaks
                    ],
                },
                indent=1,
                sort_keys=True,
            )
            + "\n"
        )


def build_manifest(
    samples: Iterable[Sample], *, pixels: bool = True, left_out: Mapping[str, Mapping[str, int]] | None = None
) -> Manifest:
    """Return the manifest of all datasets of a run; everything whose split is not train is held out.

    `left_out` is the mixture's account, which goes into the manifest as it is.

    Each split has `samples` and `images` (counts), `datasets` (samples of each), `sha256`: the image file's hash to the
    ids of the samples that show it, and `words_sha256` of questions, answers and labels. `pixels` decodes every image
    once, which is what finds cut-off files and images that were saved again.
    """
    everything = list(samples)
    digests = ImageDigests()
    unreadable = _unreadable(everything, digests=digests, pixels=pixels)
    sound = [sample for sample in everything if sample.image not in unreadable]
    train = [sample for sample in sound if sample.split == "train"]
    held_out = [sample for sample in sound if sample.split != "train"]
    owners = Counter(f"{sample.dataset}: {sample.id}" for sample in everything)
    return Manifest(
        splits={split: _split([s for s in sound if s.split == split], digests=digests) for split in _SPLITS},
        unreadable=tuple(sample.id for sample in everything if sample.image in unreadable),
        repeated_ids=tuple(owner for owner, count in owners.items() if count > 1),
        leaks=tuple(find_leaks(train, held_out=held_out, digests=digests, pixels=pixels)),
        left_out=MappingProxyType(dict(left_out or {})),
    )


def _unreadable(samples: Sequence[Sample], *, digests: ImageDigests, pixels: bool) -> set[Path]:
    bad = set()
    images = list(dict.fromkeys(sample.image for sample in samples))
    for image in tqdm(images, desc="checking images", unit="image"):
        try:
            digests.of_bytes(image)
            if pixels:
                digests.of_pixels(image)
        except DataError:
            bad.add(image)
    return bad


def _split(samples: Sequence[Sample], *, digests: ImageDigests) -> dict[str, Any]:
    images: dict[str, list[str]] = {}
    for sample in samples:
        images.setdefault(digests.of_bytes(sample.image), []).append(sample.id)
    return {
        "samples": len(samples),
        "images": len(images),
        "datasets": dict(Counter(sample.dataset for sample in samples)),
        "sha256": {digest: sorted(ids) for digest, ids in images.items()},
        "words_sha256": _words_sha256(samples),
    }


def _words_sha256(samples: Sequence[Sample]) -> str:
    """Return the SHA-256 of all questions, answers and labels."""
    words = sorted(json.dumps([s.dataset, s.id, s.question, s.answer, s.labels]) for s in samples)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()
