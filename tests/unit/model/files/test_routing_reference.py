"""routing_reference.json: strict, bound to its weights and to the layers and experts of its checkpoint."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.routing_reference import ROUTING_REFERENCE_FILE, RoutingReference

WEIGHTS = "a" * 64


def layer(number: int, **changes: Any) -> dict[str, Any]:
    counts: dict[str, Any] = {"image": [4, 0, 0, 0], "question": [1, 1, 0, 2]}
    return {"layer": number, "by_kind": counts, "by_modality": {"CT": [5, 1, 0, 2]}} | changes


def file(**changes: Any) -> dict[str, Any]:
    counted_on = {"datasets": ["slake"], "split": "test", "samples": 2}
    whole = {"format_version": 1, "weights_sha256": WEIGHTS, "counted_on": counted_on, "layers": [layer(0), layer(2)]}
    return whole | changes


def read(directory: Path, **changes: Any) -> RoutingReference | None:
    expected: dict[str, Any] = {"weights_sha256": WEIGHTS, "moe_layers": (0, 2), "num_experts": 4}
    return RoutingReference.from_directory(directory, **expected | changes)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / ROUTING_REFERENCE_FILE).write_text(json.dumps(file()))
    return tmp_path


def test_what_is_written_is_read(directory: Path) -> None:
    found = read(directory)
    assert found is not None
    assert found.layers[0].tokens == (5, 1, 0, 2)
    (directory / ROUTING_REFERENCE_FILE).write_text(found.to_json())
    assert read(directory) == found


def test_a_directory_without_the_file_has_no_reference(tmp_path: Path) -> None:
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"format_version": 2}, "format_version"),
        ({"weights_sha256": "abc"}, "weights_sha256"),
        ({"patients": 1}, "patients"),
        ({"layers": []}, "layers"),
        ({"layers": [layer(0, by_kind={"image": [1], "question": [1, 2]})]}, "same number of experts"),
        ({"layers": [layer(0, by_kind={"image": [-1, 2, 0, 0]})]}, "by_kind.image.0"),
        ({"layers": [layer(0, by_kind={"image": [0.5, 2, 0, 0]})]}, "by_kind.image.0"),
        ({"layers": [layer(0, by_kind={"answer": [1, 2, 0, 0]})]}, "by_kind"),
        ({"layers": [layer(0, by_kind={"image": [0, 0, 0, 0]}, by_modality={})]}, "no token"),
        ({"layers": [layer(0, by_modality={"CT": [0, 0, 0, 0]})]}, "modality without tokens"),
    ],
)
def test_a_malformed_file_is_refused_with_its_key(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        RoutingReference.from_json(json.dumps(file(**changes)))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"weights_sha256": "b" * 64}, "other weights"),
        ({"adapter_sha256": "c" * 64}, "other weights"),
        ({"moe_layers": (0, 1)}, "MoE layers, 0, 1"),
        ({"num_experts": 8}, "8 experts"),
    ],
)
def test_the_reference_of_another_checkpoint_is_refused(directory: Path, other: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(directory, **other)


def test_reading_needs_no_torch() -> None:
    check = "import sys, medmoe.model.files.routing_reference; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
