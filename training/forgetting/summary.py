"""Summarize each method: its score on new tasks, its score on old ones, and what of the latter it lost."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from medmoe.training.ablation.comparison import Row
from medmoe.training.forgetting.gates import Gates, MeasuredGates


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Hold one number by seed."""

    by_seed: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed)

    @property
    def deviation(self) -> float:
        """Return the standard deviation over seeds; 0 for one seed."""
        return statistics.stdev(self.by_seed) if len(self.by_seed) > 1 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Hold scores of one method, each the mean over the metrics of its tasks, 0 to 1."""

    method: str
    new: Spread
    old: Spread
    forgotten: Spread | None
    """The base's score on old tasks minus the method's; None for the base."""
    gates: MeasuredGates | None
    """Mean over seeds; None without routers."""

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def summarize(
    rows: Sequence[Row], *, old: Collection[str], new: Collection[str], gates: Mapping[str, Sequence[MeasuredGates]]
) -> list[Summary]:
    """Return one summary for each row; the first row is the base.

    `old` and `new` are the datasets, as samples name them; `gates` are those of each seed, by method.
    """
    base = _score(rows[0], old).mean
    found = []
    for place, row in enumerate(rows):
        remembered = _score(row, old)
        lost = Spread(by_seed=tuple(base - score for score in remembered.by_seed))
        found.append(
            Summary(
                method=row.method,
                new=_score(row, new),
                old=remembered,
                forgotten=lost if place else None,
                gates=_mean(gates.get(row.method, ())),
            )
        )
    return found


def columns_of(row: Row, datasets: Collection[str]) -> list[str]:
    """Return the names of the row's metrics on these datasets."""
    return [column for column in row.figures if column.rpartition(" ")[0] in datasets]


def _score(row: Row, datasets: Collection[str]) -> Spread:
    figures = [row.figures[column] for column in columns_of(row, datasets)]
    return Spread(by_seed=tuple(map(statistics.fmean, zip(*(figure.by_seed for figure in figures), strict=True))))


def _mean(each: Sequence[MeasuredGates]) -> MeasuredGates | None:
    if not each:
        return None

    def mean(gates: Sequence[Gates]) -> Gates:
        return Gates(
            entropy=statistics.fmean(found.entropy for found in gates),
            anchor_mass=statistics.fmean(found.anchor_mass for found in gates),
        )

    return MeasuredGates(old=mean([found.old for found in each]), new=mean([found.new for found in each]))
