"""Samples refuse fields that contradict each other; shared images are found by their bytes."""

from pathlib import Path
from typing import Any

import pytest

from medmoe.training.data.errors import SampleError
from medmoe.training.data.leakage.leaks import shared_images
from medmoe.training.data.sample import Sample


def sample(**fields: Any) -> Sample:
    known: dict[str, Any] = {"id": "d/0", "dataset": "d", "image": Path("/a.png"), "split": "train", "answer": "CT"}
    return Sample(**(known | fields))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image": Path("a.png")}, "absolute"),
        ({"answer": " "}, "answer is blank"),
        ({"question": ""}, "question is blank"),
        ({"question": "What?", "labels": ("CT", "MRI")}, "not both"),
        ({"labels": ("MRI", "X-ray")}, "not in label_set"),
        ({"labels": ("CT", "CT")}, "two different"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(SampleError, match=reason):
        sample(**fields)


def test_shared_images_are_found_under_another_name(tmp_path: Path) -> None:
    for name, content in {"a": b"one", "b": b"two", "copy": b"one"}.items():
        (tmp_path / name).write_bytes(content)
    test = [sample(id=name, image=tmp_path / name, split="test") for name in ("b", "copy")]
    train = [sample(id="t", image=tmp_path / "a")]
    assert [found.id for found in shared_images(train, test=test)] == ["copy"]
