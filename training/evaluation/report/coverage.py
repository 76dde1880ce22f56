"""Measure how often prediction sets hold the true label, with exact binomial intervals."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from medmoe.model.files.calibration import Calibration
from medmoe.training.evaluation.metrics.interval import binomial_interval
from medmoe.training.evaluation.predict.outcome import Outcome
from medmoe.training.evaluation.report.markdown_table import table

ALPHAS = (0.05, 0.1, 0.2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Prediction sets of one dataset at one alpha."""

    dataset: str
    alpha: float
    n: int
    covered: int
    mean_size: float
    """Labels in a set."""
    labels: int
    """Labels to choose from."""

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of Clopper and Pearson (1934)."""
        return binomial_interval(self.covered, self.n)


def coverages(outcomes: Iterable[Outcome], calibration: Calibration) -> list[Coverage]:
    """Return the coverage for each dataset with labels that the checkpoint has prediction sets for, at `ALPHAS`.

    The outcomes' probabilities must be the model's own, before any calibration.
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
                    n=len(members),
                    covered=sum(one.reference in chosen for one, chosen in zip(members, made, strict=True)),
                    mean_size=sum(map(len, made)) / len(members),
                    labels=len(labels),
                )
            )
    return rows


def coverage_table(outcomes: Iterable[Outcome], calibration: Calibration) -> str:
    """Return the coverages in Markdown; empty where the checkpoint has no prediction sets for these labels."""
    rows = [
        [
            row.dataset,
            f"{row.alpha:g}",
            str(row.n),
            f"{row.covered / row.n:.1%} [{row.interval[0]:.1%}, {row.interval[1]:.1%}]",
            f"{row.mean_size:.2f} of {row.labels}",
        ]
        for row in coverages(outcomes, calibration)
    ]
    head = ["prediction sets of", "alpha", "n", "hold the true label, with 95 % interval", "labels in a set"]
    return f"{table(head, rows)}\n" if rows else ""
