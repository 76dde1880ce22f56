"""Extend a reference by further training images, of which a finetuned checkpoint has seen more than its base.

Shape letters: N images, C width of the tower, K components, R training images, J components for distances.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from medmoe.model.unlike_training.reference import FalseAlarms, ReferenceImages, TrainingReference
from medmoe.model.unlike_training.scorer import ReferenceTensors, UnlikeTraining, parts, project
from medmoe.training.unlike_training.fit import discriminant, part_standards, rounded, spacing
from medmoe.training.unlike_training.measure import score
from medmoe.training.unlike_training.pooled_features import PooledFeatures

_FALSE_ALARMS = 0.03
"""Share of the held-out images that the threshold may flag; of fewer than 34 it flags none."""
_MOST_IMAGES = 5000
_DIRECTIONS, _IMAGES_A_DIRECTION, _MOST_COMPONENTS = 24, 2, 5 / 6
"""Components that are added at most, images that each of them needs, and the share of the width that they may reach."""
_WEIGHT = 0.1
"""Share of the base's images that the further ones count as at least, for the discriminant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FurtherImages:
    """Images that the base's reference does not know, and drawn ones."""

    train: PooledFeatures
    held_out: PooledFeatures
    """Images of the same source that training did not see; at least one."""
    datasets: Sequence[str]
    drawn: PooledFeatures


def extend_reference(
    base: UnlikeTraining, further: FurtherImages, *, tower_sha256: str
) -> tuple[TrainingReference, ReferenceTensors]:
    """Return a reference that also knows `further`, of the same tower's features.

    The training images become neighbours, their residuals become components, and the discriminant is fitted again.
    Where held-out images still exceed what the base's reference calls usual, that limit and the threshold rise.
    """
    known = base.reference
    train = further.train.rows(range(0, len(further.train), math.ceil(len(further.train) / _MOST_IMAGES)))
    tensors = _with_images(base.tensors, train, drawn=further.drawn)
    own_centre, own_scale = part_standards(
        parts(tensors, further.held_out.mean, further.held_out.std, known.neighbours)
    )
    centre = torch.maximum(tensors.part_centre, own_centre)
    scale = torch.maximum(tensors.part_scale, own_centre + own_scale - centre)
    # The discriminant's centre is a high quantile already.
    scale[-1] = torch.maximum(tensors.part_scale, own_scale)[-1]
    tensors = rounded(replace(tensors, part_centre=centre, part_scale=scale))
    scores = score(UnlikeTraining(known, tensors), further.held_out)
    threshold = max(known.threshold, float(scores.quantile(1 - _FALSE_ALARMS, interpolation="higher")))
    rate = float((scores > threshold).float().mean())
    datasets = tuple(dict.fromkeys([*known.references.datasets, *further.datasets]))
    extended = known.model_copy(
        update={
            "tower_sha256": tower_sha256,
            "threshold": threshold,
            "references": ReferenceImages(datasets=datasets, images=len(tensors.images)),
            "false_alarms": FalseAlarms(split="val", images=len(scores), rate=rate),
        }
    )
    return extended, tensors


def _with_images(tensors: ReferenceTensors, train: PooledFeatures, *, drawn: PooledFeatures) -> ReferenceTensors:
    mean_NC = (train.mean - tensors.mean_centre) / tensors.mean_scale
    std_NC = (train.std - tensors.std_centre) / tensors.std_scale
    images_RJ = torch.cat([tensors.images, project(mean_NC, tensors)]).half().float()
    # The file keeps no more of the base's images than their first components.
    base_RC = tensors.images / tensors.whitening @ tensors.mean_components[:, : len(tensors.whitening)].T
    repeated_NC = mean_NC.repeat(max(int(len(base_RC) * _WEIGHT) // len(mean_NC), 1), 1)
    drawn_NC = (drawn.mean - tensors.mean_centre) / tensors.mean_scale
    return rounded(
        replace(
            tensors,
            images=images_RJ,
            spacing=spacing(images_RJ),
            mean_components=_more_components(tensors.mean_components, mean_NC),
            std_components=_more_components(tensors.std_components, std_NC),
            drawn=discriminant(torch.cat([base_RC, repeated_NC]), drawn_NC),
        )
    )


def _more_components(components_CK: torch.Tensor, x_NC: torch.Tensor) -> torch.Tensor:
    """Return the components and after them the principal directions of what they leave of the rows."""
    width, kept = components_CK.shape
    room = int(width * _MOST_COMPONENTS) - kept
    count = max(min(_DIRECTIONS, len(x_NC) // _IMAGES_A_DIRECTION, room), 0)
    residual_NC = x_NC - x_NC @ components_CK @ components_CK.T
    directions = torch.linalg.svd(residual_NC, full_matrices=False).Vh[:count]
    return torch.cat([components_CK, directions.T], dim=1)
