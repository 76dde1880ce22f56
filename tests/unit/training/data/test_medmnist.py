"""MedMNIST arrays: labels by name, images on disk, and files that are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.model.prompt import Prompt
from medmoe.training.data.errors import DatasetError
from medmoe.training.data.read_result import ReadResult
from medmoe.training.data.readers.medmnist import read_medmnist
from medmoe.training.data.readers.medmnist_sets import SETS
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer

RANDOM = np.random.default_rng(0)


def arrays(rows: int = 5, *, shape: tuple[int, ...] = (28, 28), labels: Any = None) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        found[f"{split}_images"] = RANDOM.integers(0, 256, (rows, *shape), dtype=np.uint8)
        found[f"{split}_labels"] = np.array(labels if labels is not None else np.arange(rows) % 2, dtype=np.uint8)
        found[f"{split}_labels"] = found[f"{split}_labels"].reshape(rows, -1)
    return found


def save(folder: Path, name: str, **content: np.ndarray) -> Path:
    np.savez_compressed(folder / f"{name}.npz", **content)
    return folder / f"{name}.npz"


def test_rows_become_classification_samples_with_the_published_names(tmp_path: Path) -> None:
    content = arrays()
    file = save(tmp_path, "pneumoniamnist", **content)
    samples = read_medmnist(file, split="val", image_directory=tmp_path / "png").samples
    assert [sample.id for sample in samples] == [f"pneumoniamnist/val/{row}" for row in range(5)]
    assert [sample.answer for sample in samples] == ["normal", "pneumonia", "normal", "pneumonia", "normal"]
    for sample, pixels in zip(samples, content["val_images"], strict=True):
        assert (sample.labels, sample.modality, sample.split) == (("normal", "pneumonia"), "X-ray", "val")
        assert np.array_equal(np.asarray(Image.open(sample.image)), pixels)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("organcmnist_64", (64, 64)), ("pathmnist_128", (128, 128, 3)), ("bloodmnist_224", (224, 224, 3))],
)
def test_sizes_and_colours(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    file = save(tmp_path, name, **arrays(2, shape=shape))
    result = read_medmnist(file, split="train", image_directory=tmp_path / "png")
    assert len(result.samples) == 2
    assert np.asarray(Image.open(result.samples[0].image)).shape == shape


def test_images_are_written_once_and_equal_ones_share_a_file(tmp_path: Path) -> None:
    content = arrays(3)
    content["test_images"][0] = content["train_images"][0]
    file = save(tmp_path, "pneumoniamnist", **content)

    def read() -> list[ReadResult]:
        return [read_medmnist(file, split=split, image_directory=tmp_path / "png") for split in ("train", "test")]

    train, test = read()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "png").rglob("*.png")}
    assert read() == [train, test]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "png").rglob("*") if path.is_file()} == written
    assert train.samples[0].image == test.samples[0].image
    assert len(written) == 5


def test_unknown_class_number_is_reported_with_its_row(tmp_path: Path) -> None:
    file = save(tmp_path, "pneumoniamnist", **arrays(3, labels=[0, 7, 1]))
    result = read_medmnist(file, split="train", image_directory=tmp_path / "png")
    assert [sample.id for sample in result.samples] == ["pneumoniamnist/train/0", "pneumoniamnist/train/2"]
    assert (result.bad[0].file, result.bad[0].place) == ("pneumoniamnist.npz[train]", 2)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("chestmnist", arrays(2, labels=np.zeros((2, 14))), "multi-label"),
        ("pneumoniamnist", arrays(2, labels=np.zeros((2, 14))), "one whole number"),
        ("organmnist3d", arrays(2, shape=(28, 28, 28)), "not named after a 2D set"),
        ("organcmnist", arrays(2, shape=(28, 28, 28)), "not uint8"),
        ("cifar", arrays(2), "not named after a 2D set"),
        ("pneumoniamnist", {"train_images": arrays(2)["train_images"]}, "no array train_labels"),
        ("pneumoniamnist", arrays(2) | {"train_images": np.zeros((3, 28, 28), np.uint8)}, "3 images and 2 labels"),
        ("pneumoniamnist", arrays(2) | {"train_images": np.zeros((2, 28, 28), np.float32)}, "not uint8"),
        ("pneumoniamnist", arrays(2) | {"train_labels": np.array([[0], [None]], object)}, "Python objects"),
    ],
)
def test_what_is_no_single_label_classification_is_refused(
    tmp_path: Path, name: str, content: dict[str, np.ndarray], reason: str
) -> None:
    file = save(tmp_path, name, **content)
    with pytest.raises(DatasetError, match=reason):
        read_medmnist(file, split="train", image_directory=tmp_path / "png")


@pytest.mark.parametrize("kept", [0, 40, 400, -30], ids=["empty", "no directory", "half", "cut at the end"])
def test_damaged_file_is_an_error(tmp_path: Path, kept: int) -> None:
    file = save(tmp_path, "pneumoniamnist", **arrays())
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DatasetError, match="damaged"):
        read_medmnist(file, split="train", image_directory=tmp_path / "png")


def test_flipped_bytes_are_an_error(tmp_path: Path) -> None:
    file = save(tmp_path, "pneumoniamnist", **arrays(50))
    data = bytearray(file.read_bytes())
    data[2000:2100] = bytes(100)
    file.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged"):
        read_medmnist(file, split="train", image_directory=tmp_path / "png")


def test_folder_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    file = save(tmp_path, "pneumoniamnist", **arrays())
    with pytest.raises(DatasetError, match="name another folder"):
        read_medmnist(file, split="train", image_directory=file)


@pytest.mark.parametrize("name", sorted(SETS))
def test_every_label_set_can_be_asked_for_without_ambiguity(name: str) -> None:
    labels = SETS[name].labels
    assert len(set(labels)) == len(labels) >= 2
    question = Prompt(tiny_config(), tokenizer=tiny_tokenizer()).classification(labels)
    assert question.count(", ") == len(labels) - 1
