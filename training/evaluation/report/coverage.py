"""Measure how often prediction sets hold the true label, with intervals."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from medmoe.model.files.calibration import Calibration
from medmoe.training.evaluation.metrics.interval import Interval, share_interval
from medmoe.training.evaluation.predict.outcome import Outcome
from medmoe.training.evaluation.report.markdown_table import percent, table

ALPHAS = (0.05, 0.1, 0.2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Prediction sets of one dataset at one alpha."""

    dataset: str
    alpha: float
    held: Interval
    """Share of the sets that hold the true label."""
    mean_size: float
    """Labels in a set."""
    labels: int
    """Labels to choose from."""


def coverages(
    outcomes: Iterable[Outcome],
    calibration: Calibration,
    *,
    clusters: Mapping[str, Hashable],
) -> list[Coverage]:
    """Return the coverage for each dataset with labels that the checkpoint has prediction sets for, at `ALPHAS`.

    The outcomes' probabilities must be the model's own, before any calibration; `clusters` are those of their samples,
    by id, over which the intervals are.
    """
    groups: defaultdict[tuple[str, frozenset[str]], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.probabilities is not None:
            groups[outcome.dataset, frozenset(outcome.probabilities)].append(outcome)
    rows = []
    for (dataset, labels), members in groups.items():
        sets = next((one for one in calibration.prediction_sets if frozenset(one.labels) == labels), None)
        for alpha in ALPHAS if sets is not None else ():
            assert sets is not None
            made = [sets.prediction_set(one.probabilities or {}, alpha=alpha) for one in members]
            rows.append(
                Coverage(
                    dataset=dataset,
                    alpha=alpha,
                    held=share_interval(
                        [one.reference in chosen for one, chosen in zip(members, made, strict=True)],
                        clusters=[clusters[one.id] for one in members],
                    ),
                    mean_size=sum(map(len, made)) / len(members),
                    labels=len(labels),
                )
            )
    return rows


def coverage_table(rows: Iterable[Coverage]) -> str:
    """Return coverages in Markdown; empty without any."""
    cells = [
        [
            row.dataset,
            f"{row.alpha:g}",
            str(row.held.n),
            percent(row.held),
            f"{row.mean_size:.2f} of {row.labels}",
        ]
        for row in rows
    ]
    head = ["prediction sets of", "alpha", "n", "hold the true label, percent with 95 % interval", "labels in a set"]
    return f"{table(head, cells)}\n" if cells else ""
