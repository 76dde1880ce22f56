"""A score is what its definition says; a reference of another tower, or a damaged one, is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.unlike_training.scorer import UnlikeTraining
from tests.support.checkpoints.tiny import save_tiny_checkpoint
from tests.support.checkpoints.tiny_reference import save_tiny_reference, slow_score


@pytest.fixture(scope="module")
def referenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tiny_checkpoint(tmp_path_factory.mktemp("referenced") / "tiny")
    save_tiny_reference(directory)
    return directory


@pytest.fixture
def changeable(referenced: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(referenced, tmp_path / "copy"))


def scorer(directory: Path) -> UnlikeTraining | None:
    return UnlikeTraining.from_directory(directory, MedMoEConfig.from_directory(directory))


def test_another_user_can_read_what_was_saved(referenced: Path) -> None:
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in referenced.iterdir())


@pytest.mark.parametrize("scale", [0.5, 1.0, 30.0])
def test_it_is_the_score_by_the_definition(referenced: Path, scale: float) -> None:
    features = torch.randn(7, 16, 32, generator=torch.Generator().manual_seed(1)) * scale
    found = scorer(referenced)
    assert found is not None
    expected = [slow_score(referenced, image.numpy()) for image in features]
    np.testing.assert_allclose(found(features).numpy(), expected, rtol=1e-3, atol=1e-3)
    # Whatever shares its batch.
    np.testing.assert_allclose(found(features[3:4]).numpy(), expected[3:4], rtol=1e-3, atol=1e-3)


def test_a_checkpoint_without_a_reference_has_none(changeable: Path) -> None:
    (changeable / "training_reference.safetensors").unlink()
    assert scorer(changeable) is None


def test_a_reference_of_another_tower_is_refused(changeable: Path) -> None:
    weights = load_file(changeable / "model.safetensors")
    name = next(name for name in weights if name.startswith("vision_tower."))
    save_file(weights | {name: weights[name] + 1}, changeable / "model.safetensors")
    with pytest.raises(CheckpointError, match="another vision tower"):
        scorer(changeable)


def test_another_decoder_keeps_it(changeable: Path) -> None:
    weights = load_file(changeable / "model.safetensors")
    name = next(name for name in weights if name.startswith("language_model."))
    save_file(weights | {name: weights[name] + 1}, changeable / "model.safetensors")
    assert scorer(changeable) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda found: {"images": torch.zeros(3, 5)},
        lambda found: {name: found[name][:3] for name in ("images", "spacing")},
        lambda found: {"spacing": torch.cat([found["spacing"][1:], torch.tensor([torch.nan])])},
        lambda found: {"mean_centre": torch.zeros(31)},
    ],
    ids=["other components", "fewer images than neighbours", "no number", "another width"],
)
def test_tensors_that_do_not_fit_are_refused(
    changeable: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    path = changeable / "training_reference.safetensors"
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    found = load_file(path)
    save_file(found | {name: value.half() for name, value in change(found).items()}, path, metadata=metadata)
    with pytest.raises(CheckpointError):
        scorer(changeable)


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON"])
def test_metadata_that_do_not_fit_are_refused(changeable: Path, text: str) -> None:
    path = changeable / "training_reference.safetensors"
    save_file(load_file(path), path, metadata={"medmoe": text})
    with pytest.raises(ConfigError, match="training reference"):
        scorer(changeable)
