"""Fit prediction sets: the scores of the true labels on held-out images."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from medmoe.model.files.calibration_binding import BoundTo, Dtype
from medmoe.model.files.prediction_sets import PredictionSets
from medmoe.training.config import Split
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.calibration.label_sets import fitted_on, label_sets
from medmoe.training.evaluation.prediction import Prediction


def fit_prediction_sets(
    samples: Sequence[Sample],
    *,
    predictions: Mapping[Dtype, Mapping[str, Prediction]],
    split: Split,
    prompt_sha256: str,
) -> tuple[PredictionSets, ...]:
    """Return prediction sets for each set of labels in each number format.

    A label of a cluster counts once in a set of labels: what its other samples say is not independent.
    """
    firsts = {
        labels: list({(sample.cluster, sample.answer): sample for sample in reversed(shown)}.values())
        for labels, shown in label_sets(samples).items()
    }
    return tuple(
        PredictionSets(
            labels=labels,
            bound_to=BoundTo(prompt_sha256=prompt_sha256, dtypes=(dtype,)),
            fitted_on=fitted_on(shown, split=split),
            scores=_scores(shown, of_format),
        )
        for labels, shown in firsts.items()
        for dtype, of_format in predictions.items()
    )


def _scores(samples: Sequence[Sample], predictions: Mapping[str, Prediction]) -> dict[str, tuple[float, ...]]:
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        shares = predictions[sample.id].probabilities
        assert shares is not None
        scores[sample.answer].append(min(max(1 - shares[sample.answer], 0.0), 1.0))
    return {label: tuple(sorted(values)) for label, values in sorted(scores.items())}
