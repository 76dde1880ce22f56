"""Imaging modality as a question of its own: one sample an image, for the router and for `/v1/classify`."""

import random
from collections.abc import Iterable, Sequence

from medmoe.training.data.sample import Sample


def modality_samples(samples: Iterable[Sample], *, domains: Sequence[str], seed: int) -> list[Sample]:
    """One classification sample for each image whose modality is among `domains`.

    The labels offered are the truth and one or more of the others, drawn by `seed` and the image's name, so that the
    model learns to choose among what it is offered.
    """
    chosen: dict[object, Sample] = {}
    for sample in samples:
        if sample.modality is None or sample.modality not in domains or sample.image in chosen:
            continue
        draw = random.Random(f"{seed}/{sample.dataset}/{sample.image.name}")
        others = [domain for domain in domains if domain != sample.modality]
        labels = [sample.modality, *draw.sample(others, draw.randint(1, len(others)))]
        chosen[sample.image] = Sample(
            id=f"{sample.dataset}/modality/{sample.image.name}",
            dataset=sample.dataset,
            image=sample.image,
            split=sample.split,
            answer=sample.modality,
            labels=tuple(sorted(labels)),
            modality=sample.modality,
            image_in_train=sample.image_in_train,
        )
    return list(chosen.values())
