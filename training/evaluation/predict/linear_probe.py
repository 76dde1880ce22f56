"""Train a linear probe on a checkpoint's own vision tower.

Logistic regression on each image's mean, standard deviation and maximum over its patch features, fitted on the train
split. A checkpoint whose answers lose to it is not trained: what it needs is in its features.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.training.data.batches.collator import Features
from medmoe.training.data.errors import DataError
from medmoe.training.data.image import read_rgb
from medmoe.training.data.leakage.near_duplicates import DisjointSets, near_duplicates, thumbnail
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Prediction, of_labels
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.precision import fast_dtype

PROBE = "linear probe on the tower"
_PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""Weights of half the squared norm, beside the mean loss on features of unit variance."""
_Rows = tuple[torch.Tensor, torch.Tensor]
"""Pooled features [N, D] and class numbers [N] of images."""
_NEVER = -1e9
"""Log-probability of a label that has no training image."""
_HELD_OUT = 0.2
_FOLDS = 5


def probe_predictions(
    samples: Sequence[Sample], *, train: Sequence[Sample], val: Sequence[Sample], features: Features
) -> dict[str, Prediction]:
    """Return a prediction for each classification sample whose dataset has training images of at least two labels, by
    id.

    The penalty is the one that is best on `val`; where a dataset has no such samples, on a fifth of its training
    images, or of the groups that these have, which the final fit uses again.
    """
    found: dict[str, Prediction] = {}
    train_sets, val_sets = _by_dataset(train), _by_dataset(val)
    for dataset, asked in _by_dataset(samples).items():
        known = train_sets.get(dataset, [])
        if _can_be_probed(known):
            found |= _probed(asked, train=known, val=val_sets.get(dataset, []), features=features)
    return found


def unprobed(samples: Sequence[Sample], *, train: Sequence[Sample]) -> list[str]:
    """Return the names of datasets with labels for which `probe_predictions` returns nothing."""
    train_sets = _by_dataset(train)
    return [name for name in _by_dataset(samples) if not _can_be_probed(train_sets.get(name, []))]


def _can_be_probed(train: Sequence[Sample]) -> bool:
    return len({sample.answer for sample in train}) > 1


def out_of_fold_probabilities(samples: Sequence[Sample], *, features: Features) -> dict[str, dict[str, float]]:
    """Return the probability of each label by sample id, from a probe fitted on the images of the other folds.

    Images of one cluster and those that are nearly the same share a fold. The penalty is the one whose
    probabilities are best out of fold. Raises DataError naming a file that is no image, or when all images share one
    group, so that no other fold is left to fit a probe on.
    """
    labels = sorted({sample.answer for sample in samples})
    inputs, targets = _tensors(samples, labels=labels, features=features)
    inputs = (inputs - inputs.mean(dim=0)) / inputs.std(dim=0, correction=0).clamp(min=1e-6)
    fold_of = _folds({sample.image: sample.cluster for sample in samples})
    folds = torch.tensor([fold_of[sample.image] for sample in samples])
    candidates = []
    for penalty in _PENALTIES:
        log_p = torch.zeros(len(samples), len(labels))
        for fold in range(_FOLDS):
            inside = folds == fold
            weights = logistic_regression(inputs[~inside], targets[~inside], classes=len(labels), penalty=penalty)
            log_p[inside] = _log_p(inputs[inside], weights)
        candidates.append(log_p)
    best = max(candidates, key=lambda log_p: log_p.gather(1, targets[:, None]).mean().item())
    return {
        sample.id: dict(zip(labels, row, strict=True)) for sample, row in zip(samples, best.exp().tolist(), strict=True)
    }


def _folds(clusters: Mapping[Path, Hashable]) -> dict[Path, int]:
    """Return the fold of each image, drawn for each cluster with its near duplicates; at least two folds have images.

    Raises DataError when there is one such group alone.
    """
    thumbnails = {image: thumbnail(read_rgb(image)) for image in clusters}
    groups = DisjointSets()
    for one, other in near_duplicates(thumbnails):
        groups.join(one, other)
    for image, cluster in clusters.items():
        groups.join(cluster, image)
    rng = random.Random(0)
    fold_of_group: dict[Hashable, int] = {}
    for image in thumbnails:
        fold_of_group.setdefault(groups.root(image), rng.randrange(_FOLDS))
    if len(fold_of_group) == 1:
        raise DataError(
            f"the {len(thumbnails)} images to distil labels for are of one patient or nearly the same; labels are "
            "distilled from the images of other groups: train without `distilled`, or add images"
        )
    if len(set(fold_of_group.values())) == 1:
        last = next(reversed(fold_of_group))
        fold_of_group[last] = (fold_of_group[last] + 1) % _FOLDS
    return {image: fold_of_group[groups.root(image)] for image in thumbnails}


def tower_features(checkpoint: Path, folder: Path, *, samples: Iterable[Sample], device: str = "cpu") -> FeatureCache:
    """Return the checkpoint's own tower features of every labelled image, kept in `folder` as a training run keeps
    them.

    In bfloat16 where the device has it. Raises DataError naming a file that is no image, and what reading the
    checkpoint raises.
    """
    model = load_checkpoint(checkpoint)
    dtype = fast_dtype(torch.device(device))
    cache = FeatureCache(folder, tower=model.vision_tower.to(device), config=model.config, dtype=dtype)
    cache.fill(dict.fromkeys(sample.image for sample in samples if sample.kind == "classification"))
    return cache


def pooled(features: torch.Tensor) -> torch.Tensor:
    """Pool patch features [patches, hidden] to one vector [3 * hidden]: mean, standard deviation, maximum."""
    features = features.float()
    return torch.cat([features.mean(dim=0), features.std(dim=0, correction=0), features.amax(dim=0)])


def logistic_regression(
    inputs: torch.Tensor, targets: torch.Tensor, *, classes: int, penalty: float, start: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the weights [classes, D + 1], the bias last, of the optimum on `inputs` [N, D] and `targets` [N] of class
    numbers.

    `start`: weights near it, such as another penalty's.
    """
    ones = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    weights = torch.zeros(classes, ones.shape[1]) if start is None else start.clone()
    weights.requires_grad_()
    solver = torch.optim.LBFGS([weights], max_iter=100, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = F.cross_entropy(ones @ weights.T, targets) + penalty / 2 * weights[:, :-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach()


def _probed(
    asked: Sequence[Sample], *, train: Sequence[Sample], val: Sequence[Sample], features: Features
) -> Mapping[str, Prediction]:
    """Fit the probe of one dataset on `train` and return its predictions for `asked`, by id."""
    labels = sorted({sample.answer for sample in train})
    inputs, targets = _tensors(train, labels=labels, features=features)
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0, correction=0).clamp(min=1e-6)
    inputs = (inputs - mean) / deviation
    val = [sample for sample in val if sample.answer in labels]
    if val:
        val_inputs, val_targets = _tensors(val, labels=labels, features=features)
        fit, measured = (inputs, targets), ((val_inputs - mean) / deviation, val_targets)
    else:
        held_out = _held_out(train)
        fit, measured = (inputs[~held_out], targets[~held_out]), (inputs[held_out], targets[held_out])
    penalty = _best_penalty(fit, measured, classes=len(labels))
    weights = logistic_regression(inputs, targets, classes=len(labels), penalty=penalty)
    images = torch.stack([pooled(features(sample.image)) for sample in asked])
    rows = _log_p((images - mean) / deviation, weights).tolist()
    found = {}
    for sample, row in zip(asked, rows, strict=True):
        known = dict(zip(labels, row, strict=True))
        offered = {label: known.get(label, _NEVER) for label in sample.labels}
        found[sample.id] = of_labels(sample.id, offered, routing=None)
    return found


def _held_out(train: Sequence[Sample]) -> torch.Tensor:
    """Return which samples are of a fifth of the clusters, or of the samples where all are of one [N]."""
    clusters: list[Hashable] = [sample.cluster for sample in train]
    if len(set(clusters)) == 1:
        clusters = list(range(len(train)))
    different = list(dict.fromkeys(clusters))
    kept = set(random.Random(0).sample(different, max(1, round(_HELD_OUT * len(different)))))
    return torch.tensor([cluster in kept for cluster in clusters])


def _best_penalty(fit: _Rows, measured: _Rows, *, classes: int) -> float:
    """Return the penalty that, fitted on `fit`, is most accurate on `measured`; between equals the likelier one."""
    inputs, targets = measured
    scores = {}
    weights: torch.Tensor | None = None
    for penalty in _PENALTIES:
        weights = logistic_regression(*fit, classes=classes, penalty=penalty, start=weights)
        log_p = _log_p(inputs, weights)
        accuracy = (log_p.argmax(dim=1) == targets).float().mean().item()
        scores[penalty] = (accuracy, log_p.gather(1, targets[:, None]).mean().item())
    return max(scores, key=scores.__getitem__)


def _log_p(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities [N, classes] of inputs [N, D]."""
    return (inputs @ weights[:, :-1].T + weights[:, -1]).log_softmax(dim=1)


def _tensors(samples: Sequence[Sample], *, labels: Sequence[str], features: Features) -> _Rows:
    return (
        torch.stack([pooled(features(sample.image)) for sample in samples]),
        torch.tensor([labels.index(sample.answer) for sample in samples]),
    )


def _by_dataset(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    groups: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.kind == "classification":
            groups[sample.dataset].append(sample)
    return groups
