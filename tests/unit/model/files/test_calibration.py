"""calibration.json: strict, bound to its weights, and harmless to what the model chose."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.calibration import CALIBRATION_FILE, Calibration, Isotonic, Temperature

WEIGHTS = "a" * 64


def fit(map_: dict[str, Any]) -> dict[str, Any]:
    return {
        "map": map_,
        "fitted_on": {"datasets": ["slake"], "split": "val", "n": 100},
        "held_out": {"n": 100, "ece_before": 0.2, "ece_after": 0.05, "nll_before": 0.9, "nll_after": 0.6},
    }


def file(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "format_version": 1,
        "weights_sha256": WEIGHTS,
        "classification": fit({"method": "temperature", "temperature": 2.0}),
        "answers": fit({"method": "isotonic", "x": [0.2, 0.8], "y": [0.1, 0.5]}),
    }
    return whole | changes


def parse(**changes: Any) -> Calibration:
    return Calibration.from_json(json.dumps(file(**changes)))


def test_labels_are_tempered_and_sum_to_one() -> None:
    found = parse().classification
    assert found is not None
    expected = [math.sqrt(p) / (math.sqrt(0.64) + math.sqrt(0.36)) for p in (0.64, 0.36)]
    assert found.apply((0.64, 0.36)) == pytest.approx(expected)


def test_answers_are_mapped_one_by_one() -> None:
    found = parse().answers
    assert found is not None
    assert found.apply([0.0, 0.2, 0.5, 0.8, 1.0]) == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.5])


def test_temperature_with_bias_on_a_single_probability() -> None:
    map_ = Temperature(temperature=2.0, bias=1.0)
    for p in (0.8, 0.05):
        logit = math.log(p / (1 - p))
        assert map_.single(p) == pytest.approx(1 / (1 + math.exp(-(logit / 2 + 1))))


@pytest.mark.parametrize("map_", [Temperature(temperature=0.05), Isotonic(x=(0.5,), y=(0.0,))])
@pytest.mark.parametrize("extreme", [(1.0, 0.0), (0.0, 1.0), (1e-320, 1.0)])
def test_extreme_probabilities_give_a_distribution(map_: Temperature | Isotonic, extreme: tuple[float, ...]) -> None:
    found = map_.labels(extreme)
    assert sum(found) == pytest.approx(1)
    assert all(0 <= p <= 1 for p in found)
    assert all(0 <= map_.single(p) <= 1 for p in extreme)


@pytest.mark.parametrize(
    "map_", [Temperature(temperature=3.0), Temperature(temperature=0.3), Isotonic(x=(0.0, 1.0), y=(0.0, 0.4))]
)
def test_the_order_of_labels_is_kept(map_: Temperature | Isotonic) -> None:
    said = (0.5, 0.05, 0.15, 0.3)
    found = map_.labels(said)
    assert sorted(range(4), key=lambda i: said[i]) == sorted(range(4), key=lambda i: found[i])


def test_labels_that_are_no_distribution_are_refused() -> None:
    found = parse().classification
    assert found is not None
    with pytest.raises(ValueError, match="sum to 1"):
        found.apply((0.5, 0.1))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"format_version": 2}, "format_version"),
        ({"weights_sha256": "abc"}, "weights_sha256"),
        ({"extra": 1}, "extra"),
        ({"classification": fit({"method": "temperature", "temperature": 0.0})}, "temperature"),
        ({"classification": fit({"method": "temperature", "temperature": 1.0, "bias": 0.5})}, "no bias"),
        ({"classification": fit({"method": "magic"})}, "magic"),
        ({"answers": fit({"method": "isotonic", "x": [0.5, 0.5], "y": [0.1, 0.2]})}, "x must ascend"),
        ({"answers": fit({"method": "isotonic", "x": [0.5, 0.6], "y": [0.2, 0.1]})}, "y must not fall"),
        ({"answers": fit({"method": "isotonic", "x": [0.5, 0.6], "y": [0.2]})}, "differ in length"),
        ({"answers": fit({"method": "isotonic", "x": [0.5], "y": [1.2]})}, "y.0"),
    ],
)
def test_a_malformed_file_is_refused_with_its_key(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        parse(**changes)


def test_a_directory_without_the_file_has_no_calibration(tmp_path: Path) -> None:
    assert Calibration.of_weights(tmp_path, weights_sha256=WEIGHTS) is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = parse()
    (tmp_path / CALIBRATION_FILE).write_text(made.to_json())
    assert Calibration.of_weights(tmp_path, weights_sha256=WEIGHTS) == made


@pytest.mark.parametrize(
    "other", [{"weights_sha256": "b" * 64}, {"weights_sha256": WEIGHTS, "adapter_sha256": "c" * 64}]
)
def test_the_calibration_of_other_weights_is_refused(tmp_path: Path, other: dict[str, str]) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(parse().to_json())
    with pytest.raises(CheckpointError, match="other weights"):
        Calibration.of_weights(tmp_path, **other)


def test_reading_needs_no_torch() -> None:
    check = "import sys, medmoe.model.files.calibration; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
