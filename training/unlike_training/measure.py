"""Measure what a reference flags: images like its own, images of datasets that it does not know, and drawn images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medmoe.model.unlike_training.reference import FalseAlarms, ReferenceImages, TrainingReference
from medmoe.model.unlike_training.scorer import ReferenceTensors, UnlikeTraining
from medmoe.training.data.errors import DataError
from medmoe.training.evaluation.metrics.auc import auc
from medmoe.training.unlike_training.fit import NEIGHBOURS, FitData, fit_tensors
from medmoe.training.unlike_training.pooled_features import PooledFeatures


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Scores of some images by a reference."""

    name: str
    images: int
    flagged: int
    auroc: float | None
    """AUC of the score, against known images; None for known ones."""


def fit_reference(
    data: FitData, *, tower_sha256: str, datasets: Sequence[str], images: int, false_alarms: float, seed: int = 0
) -> tuple[TrainingReference, ReferenceTensors]:
    """Fit a reference whose threshold flags a share of `false_alarms` of the held-out images.

    Raises DataError when there are too few images.
    """
    if len(data.train) <= NEIGHBOURS or len(data.held_out) * false_alarms < 1:
        raise DataError(
            f"{len(data.train)} training and {len(data.held_out)} held-out images are too few for a threshold at "
            f"{false_alarms:.1%} false alarms"
        )
    tensors = fit_tensors(data, images=images, seed=seed)
    draft = TrainingReference(
        tower_sha256=tower_sha256,
        neighbours=NEIGHBOURS,
        threshold=1.0,
        references=ReferenceImages(datasets=tuple(datasets), images=len(tensors.images)),
        false_alarms=FalseAlarms(split="val", images=len(data.held_out), rate=false_alarms),
    )
    scores = score(UnlikeTraining(draft, tensors), data.held_out)
    threshold = float(scores.quantile(1 - false_alarms))
    rate = float((scores > threshold).float().mean())
    known = draft.false_alarms.model_copy(update={"rate": rate})
    return draft.model_copy(update={"threshold": threshold, "false_alarms": known}), tensors


@torch.no_grad()
def score(unlike_training: UnlikeTraining, features: PooledFeatures) -> torch.Tensor:
    """Return the scores [N] of pooled features."""
    parts = zip(features.mean.split(256), features.std.split(256), strict=True)
    return torch.cat([unlike_training.score(mean, std) for mean, std in parts])


def measure(
    unlike_training: UnlikeTraining, *, known: Mapping[str, PooledFeatures], unknown: Mapping[str, PooledFeatures]
) -> list[Measured]:
    """Measure images of `known` kinds, which should pass, and of `unknown` ones, which should be flagged."""
    threshold = unlike_training.reference.threshold
    of_known = {name: score(unlike_training, features) for name, features in known.items() if len(features)}
    inside = torch.cat(list(of_known.values()))
    rows = [_measured(name, scores, threshold) for name, scores in of_known.items()]
    for name, features in unknown.items():
        outside = score(unlike_training, features)
        truth = np.array([False] * len(inside) + [True] * len(outside))
        rows.append(_measured(name, outside, threshold, auroc=auc(torch.cat([inside, outside]).numpy(), truth)))
    return rows


def _measured(name: str, scores: torch.Tensor, threshold: float, auroc: float | None = None) -> Measured:
    return Measured(name=name, images=len(scores), flagged=int((scores > threshold).sum()), auroc=auroc)
