"""`inspect` counts what the published papers count, from headers alone."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from medmoe.model.checkpoint.io import expected_tensors
from medmoe.model.config import TextConfig
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.inspection.inspect import count_parameters, inspect_checkpoint
from tests.support.checkpoints.published import PHI_2, STABLELM_2, published
from tests.support.checkpoints.tiny import save_tiny_checkpoint
from tests.support.checkpoints.tiny_lora import save_tiny_adapted


@pytest.mark.parametrize(
    ("text", "total", "activated", "projector", "expert"),
    [
        (PHI_2, 6.45e9, 3.62e9, 9_180_160, 52_441_600),
        (STABLELM_2, 3.62e9, 2.06e9, 6_295_552, 34_603_008),
    ],
    ids=["phi-2", "stablelm-2"],
)
def test_the_published_sizes(text: TextConfig, total: float, activated: float, projector: int, expert: int) -> None:
    config = published(text)
    sizes = {name: tensor.numel() for name, tensor in expected_tensors(config).items()}
    count = count_parameters(config, sizes)
    assert count.total == pytest.approx(total, rel=2e-3)
    assert count.activated_language_model == pytest.approx(activated, rel=2e-3)
    assert (count.projector, count.expert) == (projector, expert)
    assert count.total == sum(sizes.values())
    idle = len(text.moe_layers) * 3 * expert
    assert count.total - count.activated == count.language_model - count.activated_language_model == idle


def test_top_2_activates_one_expert_more_a_layer() -> None:
    counts = []
    for top_k in (1, 2):
        config = published(PHI_2.model_copy(update={"num_experts_per_tok": top_k}))
        sizes = {name: tensor.numel() for name, tensor in expected_tensors(config).items()}
        counts.append(count_parameters(config, sizes).activated)
    assert counts[1] - counts[0] == 16 * 52_441_600


def test_a_checkpoint_on_disk_is_described(tmp_path: Path) -> None:
    found = inspect_checkpoint(save_tiny_checkpoint(tmp_path / "tiny"))
    assert (found.family, found.backbone, found.adapter) == ("med_moe", "llama", None)
    assert found.moe is not None
    assert (found.moe.layers, found.moe.experts, found.moe.gates) == ((0, 2), 4, "2 different in 2 layers")
    assert sum(found.tensors.values()) == len(load_file(tmp_path / "tiny" / "model.safetensors"))
    assert set(found.sha256) == {path.name for path in (tmp_path / "tiny").iterdir()}
    assert json.loads(found.to_json())["parameters"]["total"] == found.parameters.total


def test_equal_gates_are_one_router(tmp_path: Path) -> None:
    weights = save_tiny_checkpoint(tmp_path / "tiny") / "model.safetensors"
    tensors = load_file(weights)
    for part in ("weight", "bias"):
        gate = "language_model.model.layers.{}.mlp.gate." + part
        tensors[gate.format(2)] = tensors[gate.format(0)].clone()
    save_file(tensors, weights)
    moe = inspect_checkpoint(tmp_path / "tiny").moe
    assert moe is not None
    assert moe.gates == "one for all layers"


def test_a_dense_checkpoint_activates_everything(tmp_path: Path) -> None:
    found = inspect_checkpoint(save_tiny_checkpoint(tmp_path / "tiny", moe_layers=()))
    assert (found.family, found.moe) == ("dense", None)
    assert found.parameters.activated == found.parameters.total


def test_an_adapter_beside_the_weights_makes_it_med_moe_lora(tmp_path: Path) -> None:
    directory = save_tiny_adapted(tmp_path / "tiny")
    found = inspect_checkpoint(directory)
    assert (found.family, found.moe) == ("med_moe_lora", None)
    assert found.adapter is not None
    stored = load_file(directory / "adapter_model.safetensors")
    assert found.adapter.parameters == sum(tensor.numel() for tensor in stored.values())
    assert found.adapter.ranks_per_layer[0] == len(stored["layers.0.gate_proj.lora_A"])
    assert found.adapter.experts_per_layer[0] == len(stored["layers.0.mlp.router.weight"])


def test_half_an_adapter_is_refused(tmp_path: Path) -> None:
    directory = save_tiny_adapted(tmp_path / "tiny")
    (directory / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="adapter_model"):
        inspect_checkpoint(directory)


def test_an_upstream_directory_is_sent_to_convert(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "moe_llava_phi"}')
    with pytest.raises(ConfigError, match="medmoe convert"):
        inspect_checkpoint(tmp_path)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    (directory / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="cannot be read"):
        inspect_checkpoint(directory)
