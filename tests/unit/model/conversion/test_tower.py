"""The vision tower: read from the checkpoint or from its own directory, and never guessed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmoe.model.config import MedMoEConfig
from medmoe.model.conversion.converter import convert
from medmoe.model.conversion.options import Options
from medmoe.model.conversion.report import Report
from medmoe.model.conversion.upstream.config import UpstreamConfig
from medmoe.model.conversion.upstream.vision import image_processor_fields, vision_fields
from medmoe.model.errors import CheckpointError, ConfigError
from tests.support.checkpoints.upstream import TOWER_OPTIONS, Variant, tower, upstream_tensors, write_upstream

PHI = Variant()
_TOWER = "model.image_tower.image_tower.vision_model."


def test_a_tower_given_apart_fills_in_weights_and_what_shapes_do_not_tell(tmp_path: Path) -> None:
    tensors = upstream_tensors(PHI)
    whole = tmp_path / "whole"
    write_upstream(whole, PHI, tensors=tensors)
    convert(whole, tmp_path / "expected", Options(**TOWER_OPTIONS))
    apart = tower(PHI)
    apart.load_state_dict({n.removeprefix(_TOWER): v for n, v in tensors.items() if n.startswith(_TOWER)})
    (tmp_path / "tower").mkdir()
    names = {f"vision_model.{name}": value for name, value in apart.state_dict().items()}
    save_file(names | {"logit_scale": torch.zeros(1)}, tmp_path / "tower" / "model.safetensors")
    (tmp_path / "tower" / "config.json").write_text(json.dumps({"vision_config": apart.config.to_dict()}))
    source = tmp_path / "source"
    write_upstream(source, PHI, tensors={n: v for n, v in tensors.items() if not n.startswith(_TOWER)})
    report = convert(source, tmp_path / "target", Options(vision_tower=tmp_path / "tower"))
    accounted = {n.removeprefix("vision tower: ") for n in report.mapped.keys() | report.dropped.keys()}
    assert accounted >= names.keys() | {"logit_scale"}
    ours, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("target", "expected"))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
    both = [MedMoEConfig.from_directory(tmp_path / name).vision_config for name in ("target", "expected")]
    assert both[0] == both[1]


@pytest.mark.parametrize("change", [{"num_hidden_layers": 4}, {"hidden_size": 32}, {"patch_size": 2}])
def test_a_tower_is_held_against_its_own_config(tmp_path: Path, change: dict[str, int]) -> None:
    tensors = upstream_tensors(PHI)
    write_upstream(tmp_path / "source", PHI, tensors=tensors)
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "config.json").write_text(json.dumps(tower(PHI).config.to_dict() | change))
    with pytest.raises(CheckpointError, match=r"vision tower has 4 blocks|own config\.json"):
        convert(tmp_path / "source", tmp_path / "target", Options(vision_tower=tmp_path / "tower"))


def test_a_tensor_with_the_name_of_one_in_a_tower_given_apart_is_still_unknown(tmp_path: Path) -> None:
    inside = {n.removeprefix(_TOWER): v for n, v in upstream_tensors(PHI).items() if n.startswith(_TOWER)}
    (tmp_path / "tower").mkdir()
    save_file({f"vision_model.{name}": value for name, value in inside.items()}, tmp_path / "tower/model.safetensors")
    (tmp_path / "tower" / "config.json").write_text(json.dumps(tower(PHI).config.to_dict()))
    others = {n: v for n, v in upstream_tensors(PHI).items() if not n.startswith(_TOWER)}
    others["vision_model.pre_layrnorm.bias"] = torch.zeros(16)
    write_upstream(tmp_path / "source", PHI, tensors=others)
    with pytest.raises(CheckpointError, match=r"does not know: vision_model\.pre_layrnorm\.bias"):
        convert(tmp_path / "source", tmp_path / "target", Options(vision_tower=tmp_path / "tower"))


CLIP_L = {
    "embeddings.class_embedding": (1024,),
    "embeddings.patch_embedding.weight": (1024, 3, 14, 14),
    "embeddings.position_embedding.weight": (577, 1024),
    "encoder.layers.0.mlp.fc1.weight": (4096, 1024),
} | {f"encoder.layers.{block}.layer_norm1.weight": (1024,) for block in range(24)}


@pytest.mark.parametrize("name", ["openai/clip-vit-large-patch14-336", "/data/a b/clip-vit-large-patch14-336/"])
def test_the_published_tower_is_known_by_the_last_part_of_its_name(name: str) -> None:
    fields = {"mm_image_tower": name, "mm_hidden_size": 1024, "mm_vision_select_layer": -2}
    report = Report()
    found = vision_fields(CLIP_L, UpstreamConfig(fields, name="config.json"), Options(), report, tower_config=None)
    assert found == {
        "model_type": "clip",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "image_size": 336,
        "patch_size": 14,
        "drop_first_patch": False,
    }
    assert len(report.notes) == name.startswith("/data")


def test_upstreams_squeezing_of_siglip_images_is_not_silently_cropping() -> None:
    square = UpstreamConfig({"image_aspect_ratio": "square"}, name="config.json")
    with pytest.raises(ConfigError, match="squeezes"):
        image_processor_fields("siglip", square, Options())
    assert image_processor_fields("siglip", square, Options(image_mode="pad"))["background"] == [127, 127, 127]
