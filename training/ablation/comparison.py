"""Compare trials: each figure over seeds, and its difference to a reference on the same samples."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from medmoe.training.ablation.trial import Trial
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.metrics.interval import Interval, mean_interval
from medmoe.training.evaluation.metrics.scores import is_correct
from medmoe.training.evaluation.metrics.vqa_metrics import closed_accuracy_substring, open_recall
from medmoe.training.evaluation.prediction import Prediction

Values = dict[str, dict[str, float]]
"""By column (`slake closed`), by sample id: what one trial reaches on the sample, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Hold one metric of one method on one dataset, over its seeds."""

    mean: float
    low: float
    """Value of the worst seed."""
    high: float
    by_seed: tuple[float, ...]
    n: int
    """Samples."""
    difference: Interval | None
    """To the reference, per sample and averaged over each one's seeds, with a 95 % bootstrap over clusters; None for
    the reference itself. Its width is that of the test set, not that of the seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Hold the costs and figures of one method, over its seeds."""

    method: str
    seeds: tuple[int, ...]
    trained: int
    activated: int
    total: int
    steps: int
    seconds: float
    """Mean over seeds."""
    figures: dict[str, Figure]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def compare(
    trials: Sequence[Trial], *, samples: Sequence[Sample], reference: str, seed: int = 0, resamples: int = 1000
) -> list[Row]:
    """Return a row for each method, in the trials' order. Without a trial of `reference` there are no differences."""
    methods: defaultdict[str, list[Trial]] = defaultdict(list)
    for found in trials:
        methods[found.method].append(found)
    clusters = {sample.id: sample.cluster for sample in samples}
    reached = {name: [_values(found, samples) for found in group] for name, group in methods.items()}
    means = {name: _over_seeds(each) for name, each in reached.items()}
    rows = []
    for name, group in methods.items():
        figures = {}
        for column, values in means[name].items():
            by_seed = [statistics.fmean(found[column].values()) for found in reached[name]]
            difference = None
            if reference in means and name != reference:
                other = means[reference][column]
                difference = mean_interval(
                    [value - other[id_] for id_, value in values.items()],
                    clusters=[clusters[id_] for id_ in values],
                    seed=seed,
                    resamples=resamples,
                )
            figures[column] = Figure(
                mean=statistics.fmean(by_seed),
                low=min(by_seed),
                high=max(by_seed),
                by_seed=tuple(by_seed),
                n=len(values),
                difference=difference,
            )
        first = group[0]
        rows.append(
            Row(
                method=name,
                seeds=tuple(found.seed for found in group if found.seed is not None),
                trained=first.trained,
                activated=first.activated,
                total=first.total,
                steps=first.steps,
                seconds=statistics.fmean(found.seconds for found in group),
                figures=figures,
            )
        )
    return rows


def _values(found: Trial, samples: Sequence[Sample]) -> Values:
    """Return the columns in the order of the datasets, closed before open; questions without a type are in none."""
    values: defaultdict[str, dict[str, float]] = defaultdict(dict)
    datasets = list(dict.fromkeys(sample.dataset for sample in samples))
    for sample in sorted(samples, key=lambda sample: (datasets.index(sample.dataset), sample.answer_type or "")):
        text = found.answers[sample.id]
        if sample.kind == "classification":
            right = is_correct(sample, Prediction(id=sample.id, text=text))
            values[f"{sample.dataset} accuracy"][sample.id] = float(right)
        elif sample.answer_type is not None:
            metric = closed_accuracy_substring if sample.answer_type == "closed" else open_recall
            values[f"{sample.dataset} {sample.answer_type}"][sample.id] = metric(text, reference=sample.answer)
    return values


def _over_seeds(each: Sequence[Values]) -> Values:
    first: Mapping[str, Mapping[str, float]] = each[0]
    return {
        column: {id_: statistics.fmean(found[column][id_] for found in each) for id_ in ids}
        for column, ids in first.items()
    }
