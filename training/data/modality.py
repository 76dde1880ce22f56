"""Imaging modality as a question of its own: one sample an image, for the router and for `/v1/classify`."""

import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medmoe.training.data.sample import Sample


def modality_samples(
    samples: Iterable[Sample], *, domains: Sequence[str], seed: int, offer_all: bool = False
) -> list[Sample]:
    """One classification sample for each image whose modality is among `domains`.

    The labels offered are the truth and one or more of the others, drawn by `seed` and the image's name, so that the
    model learns to choose among what it is offered; with `offer_all` they are all of `domains`, every time.
    """
    chosen: dict[Path, Sample] = {}
    known = [sample for sample in samples if sample.modality is not None and sample.modality in domains]
    names = _names(sample.image for sample in known)
    for sample in known:
        if sample.modality is None or sample.image in chosen:
            continue
        draw = random.Random(f"{seed}/{sample.dataset}/{names[sample.image]}")
        others = [domain for domain in domains if domain != sample.modality]
        labels = [sample.modality, *draw.sample(others, len(others) if offer_all else draw.randint(1, len(others)))]
        chosen[sample.image] = Sample(
            id=f"{sample.dataset}/modality/{names[sample.image]}",
            dataset=sample.dataset,
            image=sample.image,
            split=sample.split,
            answer=sample.modality,
            labels=tuple(sorted(labels)),
            modality=sample.modality,
            image_in_train=sample.image_in_train,
        )
    return list(chosen.values())


def _names(images: Iterable[Path]) -> Mapping[Path, str]:
    """File names where they tell the images apart; below their common folder where not (SLAKE: xmlab1/source.jpg)."""
    different = set(images)
    shared = Counter(image.name for image in different)
    root = os.path.commonpath(different) if different else ""
    return {image: image.name if shared[image.name] == 1 else image.relative_to(root).as_posix() for image in different}
