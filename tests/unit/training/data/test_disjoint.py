"""Training without the images of a test split: under any name, in any dataset."""

import json
from pathlib import Path

import pytest
from PIL import Image

from medmoe.training.config import DataConfig
from medmoe.training.data.errors import DataError
from medmoe.training.data.mixture import read_mixture
from medmoe.training.recipes.catalogue import RECIPES
from medmoe.training.recipes.image_disjoint import image_disjoint
from medmoe.training.recipes.tiny import tiny


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`shared` trains on a, b and c and tests on b; `other` trains on b's pixels in another file, and on c."""
    for name, records in (
        ("shared", [("a", "train", 10), ("b", "train", 90), ("c", "train", 200), ("b", "test", 90)]),
        ("other", [("x", "train", 90), ("c", "train", 200)]),
        ("untested", [("a", "train", 10)]),
    ):
        (tmp_path / name / "images").mkdir(parents=True)
        lines = []
        for number, (image, split, shade) in enumerate(records):
            suffix = "bmp" if image == "x" else "png"
            Image.new("RGB", (8, 8), (shade, shade, shade)).save(tmp_path / name / "images" / f"{image}.{suffix}")
            fields = {"id": f"{name}/{number}", "task": "vqa", "image": f"images/{image}.{suffix}", "split": split}
            lines.append(fields | {"question": "What?", "answer": "CT", "answer_type": "open"})
        (tmp_path / name / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def read(root: Path, dataset: str, *of: str) -> list[str]:
    entry = DataConfig(dataset=dataset, source="vqa", without_images_of=of)
    return [sample.image.name for sample in read_mixture((entry,), root=root, domains=(), seed=0).samples]


def test_test_images_are_left_out_whatever_their_file_is_called(root: Path) -> None:
    assert read(root, "shared") == ["a.png", "b.png", "c.png"]
    assert read(root, "shared", "shared") == ["a.png", "c.png"]
    assert read(root, "other", "shared") == ["c.png"]


def test_a_dataset_without_a_test_split_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="untested has no test split"):
        read(root, "shared", "untested")


def test_every_training_entry_of_the_recipe_leaves_them_out() -> None:
    run = image_disjoint(tiny(), "vqa_rad")
    assert run.router is not None
    stages = (run.alignment, run.instruction_tuning, run.moe_tuning)
    entries = [*(entry for stage in stages for entry in stage.data), *run.router.data]
    assert {entry.without_images_of for entry in entries if entry.split == "train"} == {("vqa_rad",)}
    assert {entry.without_images_of for entry in run.router.held_out} == {()}
    assert run.name == run.architecture.name == "medmoe-tiny-image-disjoint"
    assert RECIPES["tiny-image-disjoint"].build() == run
