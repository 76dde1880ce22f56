"""Measure how often prediction sets hold the true label, with exact binomial intervals."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from medmoe.model.files.calibration import Calibration
from medmoe.training.evaluation.predict.outcome import Outcome
from medmoe.training.evaluation.report.markdown_table import table

ALPHAS = (0.05, 0.1, 0.2)
_TAIL = 0.025
_BISECTIONS = 60


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
        """The 95 % interval of Clopper and Pearson (1934)."""
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


def binomial_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share.

    >>> [round(end, 4) for end in binomial_interval(9, 10)]
    [0.555, 0.9975]
    """
    low = 0.0 if successes == 0 else _root(lambda p: _TAIL - (1 - _at_most(successes - 1, n, p)))
    high = 1.0 if successes == n else _root(lambda p: _at_most(successes, n, p) - _TAIL)
    return low, high


def _at_most(k: int, n: int, p: float) -> float:
    """Return the probability of at most `k` successes of `n`."""
    logs = math.log(p), math.log1p(-p)
    chosen = (math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1))
    return math.fsum(math.exp(log + i * logs[0] + (n - i) * logs[1]) for i, log in enumerate(chosen))


def _root(falling: Callable[[float], float]) -> float:
    low, high = 1e-12, 1 - 1e-12
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
