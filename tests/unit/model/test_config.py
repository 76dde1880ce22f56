"""config.json is refused when it is not exactly what this version understands."""

import json
from pathlib import Path

import pytest

from medmoe.model.config import MedMoEConfig, ProjectorConfig, VisionConfig, name_of
from medmoe.model.errors import ConfigError
from tests.support.checkpoints.tiny import tiny_config


def edited(**changes: object) -> str:
    """The tiny config.json with dotted keys replaced; None removes the key."""
    document = json.loads(tiny_config().to_json())
    for path, value in changes.items():
        *parents, key = path.split("__")
        section = document
        for parent in parents:
            section = section[parent]
        if value is None:
            del section[key]
        else:
            section[key] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("directory", "name"),
    [("my model (2)", "my-model-2"), ("_neu", "neu"), ("モデル", "checkpoint"), (200 * "a", 128 * "a")],
)
def test_a_directory_of_any_name_gives_one_that_a_checkpoint_can_have(directory: str, name: str) -> None:
    assert name_of(Path(directory)) == name
    assert MedMoEConfig.from_json(edited(name=name)).name == name


def test_round_trip() -> None:
    assert MedMoEConfig.from_json(tiny_config().to_json()) == tiny_config()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"text_config__surprise": 1}, "text_config.surprise"),
        ({"text_config__hidden_size": None}, "text_config.hidden_size"),
        ({"text_config__hidden_size": "64"}, "text_config.hidden_size"),
        ({"text_config__hidden_size": -64}, "text_config.hidden_size"),
        ({"text_config__num_attention_heads": 5}, "num_attention_heads"),
        ({"text_config__num_key_value_heads": 2, "text_config__num_attention_heads": 1}, "num_key_value_heads"),
        ({"text_config__moe_layers": [2, 0]}, "ascending"),
        ({"text_config__moe_layers": [0, 3]}, "outside"),
        ({"text_config__num_experts_per_tok": 5}, "num_experts_per_tok"),
        ({"text_config__residual": True, "text_config__shared_expert": False}, "residual"),
        ({"text_config__partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"text_config__partial_rotary_factor": 1.5}, "text_config.partial_rotary_factor"),
        ({"text_config__qkv_bias": True}, "qkv_bias"),
        ({"text_config__model_type": "phi"}, "phi"),
        ({"text_config__model_type": "stablelm", "text_config__partial_rotary_factor": 0.1}, "even number"),
        ({"text_config__eos_token_id": 512}, "eos_token_id"),
        ({"text_config__model_type": "mamba"}, "model_type"),
        ({"vision_config__patch_size": 7}, "patch_size"),
        ({"vision_config__patch_size": 64}, "smaller than patch_size"),
        ({"vision_config__drop_first_patch": True}, "drop_first_patch"),
        ({"projector_config__downsample_factor": 3}, "downsample_factor"),
        ({"image_token_id": 513}, "image_token_id"),
        ({"expert_domains": ["CT"]}, "expert_domains"),
        ({"image_processor__mode": "stretch"}, "image_processor.mode"),
        ({"image_processor__std": [0.0, 1.0, 1.0]}, "image_processor.std"),
        ({"image_processor__background": [0, 0, 999]}, "image_processor.background"),
        ({"text_config__num_hidden_layers": 10**9}, "text_config.num_hidden_layers"),
        ({"text_config__hidden_size": 10**12}, "text_config.hidden_size"),
        ({"text_config__rope_theta": 0.0}, "text_config.rope_theta"),
        ({"text_config__hidden_size": 66}, "even number"),
        ({"vision_config__image_size": 8_000_000}, "vision_config.image_size"),
        ({"vision_config__hidden_act": "nonsense"}, "vision_config.hidden_act"),
        ({"vision_config__intermediate_size": 48}, "intermediate_size"),
        ({"image_token_id": 2}, "image_token_id"),
        ({"prompt__classification": "Which?"}, "classification"),
        ({"architectures": ["LlamaForCausalLM"]}, "architectures"),
        ({"name": "a\nb"}, "name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_field_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MedMoEConfig.from_json(edited(**changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"medmoe"', "\x00"])
def test_text_that_is_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError):
        MedMoEConfig.from_json(text)


def test_values_never_appear_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        MedMoEConfig.from_json(edited(name=["SECRET"]))
    assert "SECRET" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        MedMoEConfig.from_directory(tmp_path)


def test_image_tokens_follow_from_grid_and_folding() -> None:
    assert tiny_config().num_image_tokens == 4


def test_siglip_as_upstream_trained_it_has_one_patch_less() -> None:
    published = VisionConfig(
        model_type="siglip",
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        hidden_act="gelu_pytorch_tanh",
        drop_first_patch=True,
    )
    config = tiny_config().model_copy(
        update={"vision_config": published, "projector_config": ProjectorConfig(downsample_factor=1)}
    )
    assert config.num_image_tokens == 728


def test_a_hole_in_the_grid_cannot_be_folded() -> None:
    document = json.loads(tiny_config(tower="siglip").to_json())
    document["vision_config"]["drop_first_patch"] = True
    with pytest.raises(ConfigError, match="downsample_factor"):
        MedMoEConfig.from_json(json.dumps(document))


@pytest.mark.parametrize("family", ["llama", "phi", "stablelm"])
def test_every_backbone_round_trips(family: str) -> None:
    config = tiny_config(model_type=family, out_of_vocabulary=True)
    assert MedMoEConfig.from_json(config.to_json()) == config
    assert config.image_token_id == config.text_config.vocab_size
