"""Prediction sets have the thresholds of split conformal prediction."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from medmoe.model.files.calibration_binding import BoundTo, FittedOn
from medmoe.model.files.prediction_sets import PredictionSets, conformal_quantile

LABELS = ("a", "b", "c")
ALPHAS = (0.05, 0.1, 0.2, 0.5)


def mapie_quantile(scores: Sequence[float], alpha: float) -> float:
    """Compute the threshold as MAPIE 1.6 does for the score lac (`mapie.utils._compute_classification_quantile`).

    Its formula and not the package, which would bring scikit-learn and SciPy into the development environment.
    """
    n = len(scores)
    return float(np.quantile(scores, np.ceil((n + 1) * (1 - alpha)) / n, method="lower"))


@pytest.mark.parametrize("n", [19, 20, 57, 400])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_threshold_is_mapies(n: int, alpha: float) -> None:
    scores = np.random.default_rng(n).random(n).tolist()
    assert conformal_quantile(scores, alpha=alpha) == mapie_quantile(scores, alpha)


def test_too_few_scores_have_no_threshold() -> None:
    scores = np.linspace(0, 1, 18).tolist()
    assert conformal_quantile(scores, alpha=0.05) is None
    assert conformal_quantile([*scores, 1.0], alpha=0.05) == 1.0
    assert conformal_quantile([], alpha=0.5) is None


def made(scores: dict[str, tuple[float, ...]]) -> PredictionSets:
    return PredictionSets(
        labels=LABELS,
        bound_to=BoundTo(prompt_sha256="0" * 64, dtypes=("float32",)),
        fitted_on=FittedOn(datasets=("d",), split="val", n=sum(map(len, scores.values()))),
        scores=scores,
    )


def test_a_class_with_too_few_images_takes_those_of_all() -> None:
    easy, hard = np.linspace(0, 0.5, 40).tolist(), np.linspace(0.6, 0.9, 40).tolist()
    of_all = conformal_quantile([*easy, *hard, 0.3], alpha=0.1)
    found = made({"a": tuple(easy), "b": tuple(hard), "c": (0.3,)}).thresholds(alpha=0.1)
    assert found.kind == "marginal"
    assert found.values == {"a": of_all, "b": conformal_quantile(hard, alpha=0.1), "c": of_all}


@pytest.mark.parametrize("sizes", [(30, 10, 2), (200, 19, 1), (40, 6, 0), (3, 3, 3)])
def test_a_smaller_alpha_takes_no_label_away(sizes: tuple[int, int, int]) -> None:
    drawn = np.random.default_rng(sum(sizes))
    tops = (0.2, 0.6, 1.0)
    sets = made(
        {label: tuple((top * drawn.random(n)).tolist()) for label, n, top in zip(LABELS, sizes, tops, strict=True)}
    )
    alphas = [1e-6, *np.linspace(0.001, 0.999, 999).tolist(), 1 - 1e-13]
    for shares in drawn.dirichlet([0.5, 0.3, 0.2], 20).tolist():
        found = [set(sets.prediction_set(dict(zip(LABELS, shares, strict=True)), alpha=alpha)) for alpha in alphas]
        assert all(small >= large for small, large in pairwise(found))
        assert found[0] == set(LABELS)


def test_classes_with_enough_images_take_their_own() -> None:
    scores = {
        label: tuple(np.linspace(0, top, 40).tolist()) for label, top in zip(LABELS, (0.2, 0.5, 0.9), strict=True)
    }
    found = made(scores).thresholds(alpha=0.1)
    assert found.kind == "class"
    assert found.values == {label: scores[label][36] for label in LABELS}


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_sets_hold_the_true_label_on_the_average_where_a_hard_class_has_too_few_images(alpha: float) -> None:
    drawn = np.random.default_rng(0)

    def true_scores(n: int) -> tuple[np.ndarray, np.ndarray]:
        rare = drawn.random(n) < 0.05
        return rare, np.where(rare, drawn.beta(4, 2, n), drawn.beta(1, 6, n))

    shares = []
    for _ in range(400):
        rare, scores = true_scores(80)
        sets = made({"a": tuple(scores[~rare].tolist()), "b": tuple(scores[rare].tolist())})
        found = sets.thresholds(alpha=alpha).values
        rare, scores = true_scores(100)
        shares.append(np.mean(scores <= np.where(rare, found["b"], found["a"])))
    assert np.mean(shares) > 1 - alpha - 0.01


def test_a_set_is_never_empty_and_keeps_the_order() -> None:
    sets = made(dict.fromkeys(LABELS, (0.1,) * 40))
    assert sets.prediction_set({"a": 0.3, "b": 0.36, "c": 0.34}, alpha=0.1) == ("b",)
    wide = made(dict.fromkeys(LABELS, (0.7,) * 40))
    assert wide.prediction_set({"c": 0.34, "a": 0.3, "b": 0.36}, alpha=0.1) == ("c", "a", "b")
    few = made({"a": (0.1,)})
    assert few.prediction_set({"a": 1.0, "b": 0.0, "c": 0.0}, alpha=0.1) == LABELS


def test_sets_hold_the_true_label_as_often_as_they_say() -> None:
    drawn = np.random.default_rng(0)

    def images(n: int) -> list[tuple[dict[str, float], str]]:
        shares = drawn.dirichlet([0.5, 0.3, 0.2], n)
        return [(dict(zip(LABELS, row, strict=True)), LABELS[drawn.choice(3, p=row)]) for row in shares.tolist()]

    scores: dict[str, list[float]] = {label: [] for label in LABELS}
    for shares, truth in images(2000):
        scores[truth].append(1 - shares[truth])
    sets = made({label: tuple(values) for label, values in scores.items()})
    for alpha in ALPHAS:
        found = [(truth in sets.prediction_set(shares, alpha=alpha), truth) for shares, truth in images(2000)]
        for label in LABELS:
            assert np.mean([hit for hit, truth in found if truth == label]) > 1 - alpha - 0.05
