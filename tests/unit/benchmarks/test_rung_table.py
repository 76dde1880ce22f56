"""Tables from kept loads."""

from typing import Any

import pytest

from tests.benchmarks.throughput.run import differences
from tests.benchmarks.throughput.table import comparisons, medians, over_reference, same_answers, warnings


def load(stack: str, repeat: int, *, label: str = "c=8", throughput: float = 1.0, **fields: Any) -> dict[str, Any]:
    figures = {
        "throughput": throughput,
        "ttft_p50": 0.1 / throughput,
        "ttft_p99": 0.2,
        "e2e_p50": 0.3,
        "e2e_p99": 0.4,
        "cpu_per_request": 0.05,
        "stage_image": 0.01,
    }
    given = {
        "stack": stack,
        "repeat": repeat,
        "label": label,
        "kind": "closed",
        "level": 8,
        "warm": False,
        "client_share": 0.2,
        "late": 0.0,
        "figures": figures,
        "replies": [{"number": 0, "failure": None, "text": "yes"}],
    }
    return given | fields


def test_medians_have_a_row_for_each_load_and_rung() -> None:
    rows = medians([load("engine", 0), load("service", 0), load("engine", 1, throughput=3.0)])
    assert [(row["load"], row["stack"]) for row in rows] == [("c=8", "engine"), ("c=8", "service")]
    assert rows[0]["answers/s"].startswith("2 (")
    assert rows[0]["stages ms p50"].startswith("image 10")


def test_comparisons_pair_runs_of_the_same_repeat() -> None:
    traffic = [
        load("engine", 0, throughput=10.0),
        load("service", 0, throughput=9.0),
        load("engine", 1, throughput=2.0),
        load("service", 1, throughput=1.8),
        # Its partner has failed.
        load("service", 2, throughput=100.0),
    ]
    (row,) = comparisons(traffic, ours="service", others=["engine", "vllm_serve"])
    assert row["against"] == "engine"
    assert row["throughput x"] == "0.9 (0.9 to 0.9)"
    assert row["pairs"] == "2"


def test_the_reference_is_met_at_its_best() -> None:
    traffic = [
        load("reference", 0, label="c=1", throughput=1.0),
        load("reference", 0, label="batch 2", kind="batch", throughput=2.0),
        load("reference", 0, label="batch 8", kind="batch", throughput=1.5),
        load("service", 0, throughput=6.0),
    ]
    one, batch = over_reference(traffic, ours="service", reference="reference")
    assert (one["throughput x"], batch["throughput x"], batch["its"]) == ("6", "3", "batch 2")


def test_answers_under_load_are_compared_by_request() -> None:
    other = [{"number": 0, "failure": None, "text": "no"}, {"number": 9, "failure": None, "text": "never asked"}]
    rows = same_answers([load("engine", 0), load("service", 0), load("service", 0, replies=other)], as_rung="engine")
    assert [row["same text under load"] for row in rows] == ["1/1", "1/2"]


@pytest.mark.parametrize(
    "doubtful",
    [{"client_share": 0.9}, {"late": 0.5}, {"replies": [{"number": 0, "failure": "429 overloaded", "text": ""}]}],
)
def test_what_makes_a_figure_doubtful_is_said(doubtful: dict[str, Any]) -> None:
    assert len(warnings([load("service", 0), load("service", 1, **doubtful)])) == 1


def test_only_what_both_rungs_tell_is_compared() -> None:
    engine = {"prompt_ids": [1, 2], "token_ids": [3], "text": "yes", "tokens": 1}
    told = {"prompt_ids": None, "token_ids": None, "text": "yes", "tokens": 1}
    assert differences([engine], [told]) == []
    assert differences([], [told]) == []
    with pytest.raises(ValueError, match="shorter"):
        differences([engine, engine], [told])
    (found,) = differences([engine], [engine | {"token_ids": [4]}])
    assert (found["what"], found["expected"], found["found"]) == ("token_ids", [3], [4])
