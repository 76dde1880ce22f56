"""Print the tables of all runs: each stack's medians, and what our service adds to each of the others.

Works on the JSON that is kept, so that a table can be made again from a file.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from medmoe.training.evaluation.metrics.interval import Interval
from tests.benchmarks.support.bootstrap import difference_interval, median_interval, ratio_interval, shown

Load = dict[str, Any]
"""One of `traffic`: `stack`, `repeat`, `label`, `kind`, `level`, `warm`, `figures`, `replies`, `client_share`."""
Row = dict[str, str]

SATURATED = 0.7
"""Share of a core from which on the client is taken to have been the bottleneck."""
LATE = 0.01
"""Seconds, likewise for an open loop."""


def medians(traffic: Sequence[Load]) -> list[Row]:
    """A row for each load on each stack."""
    return [_medians(label, stack, loads) for label, stack, loads in _groups(traffic)]


def comparisons(traffic: Sequence[Load], *, ours: str, others: Sequence[str]) -> list[Row]:
    """A row for each load of `ours` and each of `others` that had it too; pairs of the same repeat."""
    rows = []
    for label, stack, loads in _groups(traffic):
        if stack != ours:
            continue
        for other in others:
            partners = {load["repeat"]: load for load in traffic if (load["stack"], load["label"]) == (other, label)}
            pairs = [(load, partners[load["repeat"]]) for load in loads if load["repeat"] in partners]
            if pairs:
                rows.append(_comparison(label, other, pairs))
    return rows


def over_reference(traffic: Sequence[Load], *, ours: str, reference: str) -> list[Row]:
    """Our throughput over the reference's: one at a time, and its best batch of each repeat.

    Ours also for what was asked before, of which the reference keeps nothing.
    """
    rows = []
    for label, stack, loads in _groups(traffic):
        if stack != ours or loads[0]["kind"] != "closed":
            continue
        for name, kinds in (("one at a time", {"closed"}), ("best static batch", {"batch"})):
            best = {}
            for load in traffic:
                if load["stack"] == reference and load["kind"] in kinds:
                    held = best.get(load["repeat"])
                    if held is None or _figure(load, "throughput") > _figure(held, "throughput"):
                        best[load["repeat"]] = load
            pairs = [(load, best[load["repeat"]]) for load in loads if load["repeat"] in best]
            if pairs:
                ratio = _paired(pairs, "throughput", ratio_interval)
                chosen = ", ".join(sorted({partner["label"] for _, partner in pairs}))
                rows.append({"load": label, f"against {reference}": name, "its": chosen, "throughput x": shown(ratio)})
    return rows


def same_answers(traffic: Sequence[Load], *, as_rung: str) -> list[Row]:
    """Of each stack, the share of requests under load with the text that `as_rung` gave: batches round differently."""
    texts = {
        (load["repeat"], reply["number"]): reply["text"]
        for load in traffic
        if load["stack"] == as_rung and not load["warm"]
        for reply in load["replies"]
        if reply["failure"] is None
    }
    rows = []
    for stack in dict.fromkeys(load["stack"] for load in traffic):
        compared = [
            texts[load["repeat"], reply["number"]] == reply["text"]
            for load in traffic
            if load["stack"] == stack
            for reply in load["replies"]
            if reply["failure"] is None and (load["repeat"], reply["number"]) in texts
        ]
        if compared:
            rows.append({"stack": stack, "same text under load": f"{sum(compared)}/{len(compared)}"})
    return rows


def warnings(traffic: Iterable[Load]) -> list[str]:
    """What makes a figure doubtful."""
    found = []
    for load in traffic:
        where = f"{load['stack']}, {load['label']}, repeat {load['repeat']}"
        if (share := load["client_share"]) is not None and share > SATURATED:
            found.append(f"{where}: the client took {share:.0%} of a core")
        if load["late"] > LATE:
            found.append(f"{where}: the client was {load['late']:.3f} s late")
        failures = [reply["failure"] for reply in load["replies"] if reply["failure"] is not None]
        if failures:
            found.append(f"{where}: {len(failures)} requests without an answer ({failures[0]})")
    return found


def _groups(traffic: Sequence[Load]) -> list[tuple[str, str, list[Load]]]:
    """Loads of the same kind on the same stack, in the order in which they first came, closed loops first."""
    groups: dict[tuple[str, str], list[Load]] = {}
    for load in traffic:
        groups.setdefault((load["label"], load["stack"]), []).append(load)
    order = {label: place for place, label in enumerate(dict.fromkeys(load["label"] for load in traffic))}
    ordered = sorted(groups.items(), key=lambda item: order[item[0][0]])
    return [(label, stack, loads) for (label, stack), loads in ordered]


def _medians(label: str, stack: str, loads: Sequence[Load]) -> Row:
    def cell(name: str, *, scale: float = 1.0) -> str:
        return shown(median_interval([_figure(load, name) for load in loads]), scale=scale)

    stages = sorted({name for load in loads for name in load["figures"] if name.startswith("stage_")})
    shares = [load["client_share"] for load in loads if load["client_share"] is not None]
    return {
        "load": label,
        "stack": stack,
        "answers/s": cell("throughput"),
        "first text ms p50": cell("ttft_p50", scale=1e3),
        "p99": cell("ttft_p99", scale=1e3),
        "whole ms p50": cell("e2e_p50", scale=1e3),
        "p99 ": cell("e2e_p99", scale=1e3),
        "CPU ms/request": cell("cpu_per_request", scale=1e3),
        "client's core": f"{max(shares):.0%}" if shares else "inside",
        "stages ms p50": ", ".join(f"{name.removeprefix('stage_')} {cell(name, scale=1e3)}" for name in stages) or "-",
    }


def _comparison(label: str, other: str, pairs: Sequence[tuple[Load, Load]]) -> Row:
    return {
        "load": label,
        "against": other,
        "throughput x": shown(_paired(pairs, "throughput", ratio_interval)),
        "first text added ms p50": shown(_paired(pairs, "ttft_p50", difference_interval), scale=1e3),
        "first text x": shown(_paired(pairs, "ttft_p50", ratio_interval)),
        "whole answer added ms p50": shown(_paired(pairs, "e2e_p50", difference_interval), scale=1e3),
        "whole answer x p99": shown(_paired(pairs, "e2e_p99", ratio_interval)),
        "CPU added ms": shown(_paired(pairs, "cpu_per_request", difference_interval), scale=1e3),
        "pairs": str(len(pairs)),
    }


def _paired(
    pairs: Sequence[tuple[Load, Load]],
    name: str,
    compare: Callable[[Sequence[float], Sequence[float]], Interval],
) -> Interval:
    return compare([_figure(ours, name) for ours, _ in pairs], [_figure(theirs, name) for _, theirs in pairs])


def _figure(load: Load, name: str) -> float:
    # JSON has no NaN of its own; a file may hold null.
    value = load["figures"].get(name)
    return math.nan if value is None else float(value)
