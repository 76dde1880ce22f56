"""Summarise a level of load: throughput, latencies and outcomes."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medmoe.client.bench.load import ANSWERED, Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """Summary of one level; latencies of answered requests in seconds, None without any."""

    load: str
    requests: int
    answered_per_second: float
    tokens_per_second: float
    first_p50: float | None
    """Median time to the first piece of the answer."""
    first_p99: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    outcomes: dict[str, int]

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def level(load: str, outcomes: Sequence[Outcome]) -> Level:
    """Summarise the outcomes of one level, from its first start to its last end."""
    good = [outcome for outcome in outcomes if outcome.status == ANSWERED]
    took = max((one.ended for one in outcomes), default=0.0) - min((one.begun for one in outcomes), default=0.0)
    firsts = [one.first - one.begun for one in good if one.first is not None]
    wholes = [one.ended - one.begun for one in good]
    return Level(
        load=load,
        requests=len(outcomes),
        answered_per_second=len(good) / took if took > 0 else 0.0,
        tokens_per_second=sum(one.tokens for one in good) / took if took > 0 else 0.0,
        first_p50=percentile(firsts, 0.5),
        first_p99=percentile(firsts, 0.99),
        p50=percentile(wholes, 0.5),
        p90=percentile(wholes, 0.9),
        p99=percentile(wholes, 0.99),
        outcomes=dict(sorted(Counter(one.status for one in outcomes).items())),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile, or None without values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None
