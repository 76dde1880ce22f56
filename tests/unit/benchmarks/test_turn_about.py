"""Ratios of servers asked turn about are those of the same round, whatever the machine did between rounds."""

from typing import Any

import pytest

from tests.benchmarks.routing_cost import between
from tests.benchmarks.support.alternation import Rounds, rows


def load(variant: str, repeat: int, *, speed: float, start: int = 0, failure: str | None = None) -> dict[str, Any]:
    """At `speed` answers a second, with everything else in proportion."""
    return {
        "variant": variant,
        "repeat": repeat,
        "start": start,
        "label": "c=1",
        "figures": {"throughput": speed, "ttft_p50": 1 / speed, "cpu_per_request": 2 / speed},
        "replies": [{"failure": failure}],
    }


def test_a_slow_round_is_slow_for_all() -> None:
    speeds = (8.0, 4.0, 16.0, 2.0)
    found = [load("new", repeat, speed=2 * speed) for repeat, speed in enumerate(speeds)]
    found += [
        load("old", repeat, speed=speed, failure="429" if repeat else None) for repeat, speed in enumerate(speeds)
    ]
    old, new = rows(found, base="old")
    assert (old["variant"], old["x old"], old["failures"]) == ("old", "-", "3")
    assert (new["x old"], new["first x old"], new["failures"]) == ("2 (2 to 2)", "0.5 (0.5 to 0.5)", "0")
    assert new["answers/s"].startswith("12 (")


def test_a_pair_of_processes_is_one_figure() -> None:
    found = [
        load(variant, repeat, speed=speed * (1.5 if variant == "captured" and start else 1.0), start=start)
        for start in (0, 1)
        for variant in ("off", "captured")
        for repeat, speed in enumerate((1.0, 4.0, 2.0))
    ]
    (row,) = between(found)
    assert row["pairs"] == "2"
    assert row["answers x off"] == "1.25 (1 to 1.5)"


@pytest.mark.parametrize(("clients", "needed"), [((1,), 12), ((1, 32), 24)])
def test_one_round_more_than_counts_is_asked(clients: tuple[int, ...], needed: int) -> None:
    assert Rounds(clients=clients, requests=4, repeats=2).needed == needed
