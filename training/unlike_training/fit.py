"""Fit a reference to the pooled features of training images, held-out images and drawn images.

Shape letters: N images, C width of the tower, K components, J components for distances.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from medmoe.model.unlike_training.scorer import SMALLEST, ReferenceTensors, distances, parts, project
from medmoe.training.evaluation.predict.linear_probe import logistic_regression
from medmoe.training.unlike_training.pooled_features import PooledFeatures

NEIGHBOURS = 5
_COMPONENTS = 256
_DISTANCE_COMPONENTS = 128
_WHITENING = 0.5
"""Power: 0 keeps the components' standard deviations, 1 makes them all 1."""
_DISCRIMINANT_IMAGES = 6000
_PENALTY = 1e-3
_USUAL, _RARE, _RAREST = 0.5, 0.9, 0.99
"""Quantiles of the held-out images that standardise the parts."""
_DISCRIMINANT_GAIN = 4.0
"""The discriminant speaks only above nearly all held-out images, and then loudly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitData:
    """Features that a reference is fitted to."""

    train: PooledFeatures
    datasets: Sequence[str]
    """Dataset of each training image."""
    held_out: PooledFeatures
    """Images of the same datasets that are not in training."""
    drawn: PooledFeatures


def fit_tensors(data: FitData, *, images: int, seed: int = 0) -> ReferenceTensors:
    """Fit the tensors of a reference that keeps at most `images` training images, rounded as its file holds them."""
    centre, scale, components, variances = _principal(data.train.mean)
    std_centre, std_scale, std_components, _ = _principal(data.train.std)
    whitening = variances[:_DISTANCE_COMPONENTS].clamp_min(SMALLEST) ** (-_WHITENING / 2)
    one = torch.ones(1)
    tensors = ReferenceTensors(
        mean_centre=centre,
        mean_scale=scale,
        mean_components=components,
        std_centre=std_centre,
        std_scale=std_scale,
        std_components=std_components,
        whitening=whitening,
        images=one[:, None],
        spacing=one,
        drawn=discriminant((data.train.mean - centre) / scale, (data.drawn.mean - centre) / scale),
        part_centre=one,
        part_scale=one,
    )
    tensors = rounded(tensors)
    chosen = data.train.rows(choose_evenly(data.datasets, most=images, seed=seed))
    images_RJ = project((chosen.mean - tensors.mean_centre) / tensors.mean_scale, tensors)
    tensors = rounded(replace(tensors, images=images_RJ, spacing=spacing(images_RJ)))
    found_NQ = parts(tensors, data.held_out.mean, data.held_out.std, NEIGHBOURS)
    part_centre, part_scale = part_standards(found_NQ)
    return rounded(replace(tensors, part_centre=part_centre, part_scale=part_scale))


def part_standards(found_NQ: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is subtracted from the parts and what they are then divided by, each [4], from held-out images."""
    usual_Q, rare_Q, rarest_Q = (found_NQ.quantile(at, dim=0) for at in (_USUAL, _RARE, _RAREST))
    part_centre, part_scale = usual_Q.clone(), rare_Q - usual_Q
    part_centre[-1], part_scale[-1] = rarest_Q[-1], (rarest_Q[-1] - usual_Q[-1]) / _DISCRIMINANT_GAIN
    return part_centre, part_scale.clamp_min(SMALLEST)


def choose_evenly(datasets: Sequence[str], *, most: int, seed: int) -> list[int]:
    """Return the places of at most `most` images: as many of each dataset as the smaller ones leave room for."""
    order = torch.randperm(len(datasets), generator=torch.Generator().manual_seed(seed)).tolist()
    seen: dict[str, int] = {}
    ranked = []
    for place in order:
        seen[datasets[place]] = rank = seen.get(datasets[place], 0) + 1
        ranked.append((rank, place))
    return sorted(place for _, place in sorted(ranked)[:most])


def _principal(x_NC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return centre, scale, the first components [C, K] of the standardised rows, and their variances."""
    centre, scale = x_NC.mean(dim=0), x_NC.std(dim=0, correction=0).clamp_min(SMALLEST)
    z_NC = (x_NC - centre) / scale
    variances, vectors = torch.linalg.eigh((z_NC.T @ z_NC / len(z_NC)).double())
    kept = min(_COMPONENTS, z_NC.shape[1] * 2 // 3)
    return centre, scale, vectors.flip(1)[:, :kept].float(), variances.flip(0)[:kept].float()


def discriminant(train_NC: torch.Tensor, drawn_NC: torch.Tensor) -> torch.Tensor:
    """Return weights and bias [C + 1] of the log-odds that an image is drawn."""
    train_NC = train_NC[:: max(len(train_NC) // _DISCRIMINANT_IMAGES, 1)]
    inputs = torch.cat([train_NC, drawn_NC])
    targets = torch.cat([torch.zeros(len(train_NC)), torch.ones(len(drawn_NC))]).long()
    weights = logistic_regression(inputs, targets, classes=2, penalty=_PENALTY)
    return weights[1] - weights[0]


def spacing(images_RJ: torch.Tensor) -> torch.Tensor:
    """Return the mean distance of each image to its nearest ones, [R]."""
    found = []
    for few in images_RJ.split(512):
        # The nearest is the image itself.
        nearest = distances(few, images_RJ).topk(min(NEIGHBOURS + 1, len(images_RJ)), largest=False).values
        found.append(nearest[:, 1:].mean(dim=-1))
    return torch.cat(found).clamp_min(SMALLEST)


def rounded(tensors: ReferenceTensors) -> ReferenceTensors:
    """Return what the file will hold: distances and thresholds follow from the rounded numbers."""
    made = {field.name: getattr(tensors, field.name).half().float() for field in fields(ReferenceTensors)}
    return ReferenceTensors(**made)
