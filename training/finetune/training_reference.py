"""Extend the base's training reference by the images of a finetuning run."""

from collections.abc import Sequence
from pathlib import Path

from medmoe.model.medmoe import MedMoE
from medmoe.model.unlike_training.reference import TRAINING_REFERENCE_FILE
from medmoe.model.unlike_training.scorer import UnlikeTraining
from medmoe.model.unlike_training.tower_digest import tower_sha256
from medmoe.training.data.sample import Sample
from medmoe.training.feature_cache import FeatureCache, tower_fingerprint
from medmoe.training.unlike_training.drawn_images import KINDS, draw
from medmoe.training.unlike_training.extend import FurtherImages, extend_reference
from medmoe.training.unlike_training.measure import score
from medmoe.training.unlike_training.pooled_features import FeaturePooling, PooledFeatures
from medmoe.training.unlike_training.write import write_reference

_DRAWN, _MEASURED = 20, 10
"""Drawn images of each kind, to fit to and to measure."""


def write_extended_reference(
    directory: Path,
    *,
    base: Path,
    train: Sequence[Sample],
    val: Sequence[Sample],
    model: MedMoE,
    features: FeatureCache,
) -> str:
    """Write the reference of the finetuned `model` in `directory` and return a sentence about it.

    Nothing is written where the base has none, or where training has changed the tower: its features are others then.
    Raises as `UnlikeTraining.from_directory` does on the base.
    """
    if tower_fingerprint(model.vision_tower, model.config) != features.directory.name:
        return (
            f"No {TRAINING_REFERENCE_FILE} was written, because the vision tower was trained: `medmoe reference` makes "
            "one. Without it, images unlike the training images are not flagged."
        )
    known = UnlikeTraining.from_directory(base, model.config)
    if known is None:
        return (
            f"The base has no {TRAINING_REFERENCE_FILE}, so images unlike the training images are not flagged: run "
            "`medmoe reference` on the base, then finetune it again."
        )
    pooling = FeaturePooling(model, folder=features.directory.parent)
    own, held_out = (pooling.files(_images(samples)) for samples in (train, val))
    further = FurtherImages(
        train=own,
        held_out=held_out,
        datasets=sorted({sample.dataset for sample in train}),
        drawn=_drawn(pooling, range(_DRAWN)),
    )
    reference, tensors = extend_reference(known, further, tower_sha256=tower_sha256(directory, model.config))
    write_reference(directory, reference, tensors)
    unlike = UnlikeTraining(reference, tensors)
    flagged, alarms = (
        (score(unlike, some) > reference.threshold).float().mean()
        for some in (_drawn(pooling, range(_DRAWN, _DRAWN + _MEASURED)), held_out)
    )
    return (
        f"Of images that are no medical ones (noise, screenshots and others), {flagged:.0%} are flagged as unlike the "
        f"training images; of the {len(held_out)} val images, {alarms:.0%}."
    )


def _images(samples: Sequence[Sample]) -> list[Path]:
    return list(dict.fromkeys(sample.image for sample in samples))


def _drawn(pooling: FeaturePooling, seeds: range) -> PooledFeatures:
    return PooledFeatures.joined(pooling.images([draw(kind, seed) for seed in seeds]) for kind in KINDS)
