"""The digest of a tower is that of its tensors and settings, whatever lies beside them in whichever file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.unlike_training.tower_digest import tower_sha256
from tests.support.checkpoints.tiny import tiny_config

TOWER = {"vision_tower.a": torch.arange(6.0).reshape(2, 3), "vision_tower.b": torch.ones(4)}


def written(directory: Path, **files: dict[str, torch.Tensor]) -> Path:
    directory.mkdir()
    for name, tensors in files.items():
        save_file(tensors, directory / f"{name}.safetensors")
    return directory


@pytest.fixture
def config() -> MedMoEConfig:
    return tiny_config()


def test_other_decoders_and_shards_change_nothing(tmp_path: Path, config: MedMoEConfig) -> None:
    one = written(tmp_path / "one", model=TOWER | {"language_model.x": torch.zeros(3)})
    other = written(tmp_path / "other", model=TOWER | {"language_model.x": torch.ones(9), "a": torch.ones(2)})
    shards = {"model-00001-of-00002": {"language_model.x": torch.ones(1)}, "model-00002-of-00002": TOWER}
    sharded = written(tmp_path / "sharded", **shards)
    places = {name: f"{shard}.safetensors" for shard, tensors in shards.items() for name in tensors}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert len({tower_sha256(directory, config) for directory in (one, other, sharded)}) == 1


def test_a_tower_of_other_values_shapes_or_settings_is_another(tmp_path: Path, config: MedMoEConfig) -> None:
    same = written(tmp_path / "same", model=TOWER)
    values = written(tmp_path / "values", model=TOWER | {"vision_tower.b": torch.zeros(4)})
    shapes = written(tmp_path / "shapes", model=TOWER | {"vision_tower.a": torch.arange(6.0).reshape(3, 2)})
    cropped = config.image_processor.model_copy(update={"mode": "crop"})
    assert cropped != config.image_processor
    found = [tower_sha256(directory, config) for directory in (same, values, shapes)]
    found.append(tower_sha256(same, config.model_copy(update={"image_processor": cropped})))
    assert len(set(found)) == 4


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, config: MedMoEConfig, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        tower_sha256(tmp_path, config)
