"""Make questions about the imaging modality: one sample an image, for the router and for `/v1/classify`."""

import logging
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medmoe.training.data.sample import Sample

log = logging.getLogger(__name__)
_IS_IT = re.compile(
    r"(?:is|was) (?:this|the)(?: image)? (?:taken (?:via|by) )?(?:an? )?(ct|mri|x-?ray|ultrasound)(?: scan| image)?\??"
)


def modality_samples(
    samples: Iterable[Sample],
    *,
    domains: Sequence[str],
    seed: int,
    offer_all: bool = False,
    modality: str | None = None,
) -> list[Sample]:
    """Return one classification sample for each image whose modality is among `domains`, or is `modality` for all.

    An image whose own question denies its modality is left out: sources that read the modality off the wording of
    questions take "Is this a CT scan?" for a CT even where the answer is no.

    The labels offered are the truth and one or more of the others, drawn by `seed` and the image's name, so that the
    model learns to choose among what it is offered; with `offer_all` they are all of `domains`, every time.
    """
    chosen: dict[Path, Sample] = {}
    samples = [sample if modality is None else replace(sample, modality=modality) for sample in samples]
    denied = {sample.image for sample in samples if denies_modality(sample)}
    if denied:
        log.info("%s: %d images left out, whose questions deny their modality", samples[0].dataset, len(denied))
    known = [sample for sample in samples if sample.modality in domains and sample.image not in denied]
    names = _names(sample.image for sample in known)
    for sample in known:
        if sample.modality is None or sample.image in chosen:
            continue
        rng = random.Random(f"{seed}/{sample.dataset}/{names[sample.image]}")
        others = [domain for domain in domains if domain != sample.modality]
        labels = [sample.modality, *rng.sample(others, len(others) if offer_all else rng.randint(1, len(others)))]
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


def denies_modality(sample: Sample) -> bool:
    """Return whether the sample asks for the very modality that its image is recorded with, and answers no."""
    asked = _IS_IT.fullmatch((sample.question or "").strip().lower())
    if asked is None or sample.modality is None or sample.answer.strip().lower() != "no":
        return False
    return asked[1].replace("-", "") == sample.modality.lower().replace("-", "")


def _names(images: Iterable[Path]) -> Mapping[Path, str]:
    """Return the file names where they tell the images apart; below their common folder where not (SLAKE:
    xmlab1/source.jpg).
    """
    different = set(images)
    shared = Counter(image.name for image in different)
    root = os.path.commonpath(different) if different else ""
    return {image: image.name if shared[image.name] == 1 else image.relative_to(root).as_posix() for image in different}
