"""The adapted directory: a round trip, and everything that must not load."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.lora.checkpoint import (
    base_identity,
    has_adapter,
    load_adapted,
    load_trainable,
    read_adapter,
    save_adapted,
)
from medmoe.model.medmoe import MedMoE
from tests.support.checkpoints.tiny import save_tiny_checkpoint
from tests.support.checkpoints.tiny_lora import random_tensors, save_tiny_adapted, tiny_adapter

BACKBONES = ("llama", "phi", "stablelm")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_adapted(tmp_path_factory.mktemp("adapted") / "model")


@pytest.fixture
def copy(adapted: Path, tmp_path: Path) -> Path:
    shutil.copytree(adapted, tmp_path / "copy")
    return tmp_path / "copy"


def states(model: MedMoE) -> torch.Tensor:
    torch.manual_seed(1)
    ids = torch.randint(4, 400, (2, 12))
    ids[:, :4] = model.config.image_token_id
    with torch.no_grad():
        return model.hidden_states(ids, torch.ones_like(ids), torch.randn(2, 16, 32))


@pytest.mark.parametrize("model_type", BACKBONES)
@pytest.mark.parametrize("scope", ["block", "module"])
def test_trained_saved_loaded_and_exported_it_is_one_model(model_type: str, scope: str, tmp_path: Path) -> None:
    directory = save_tiny_adapted(tmp_path / "model", model_type=model_type, router_scope=scope)
    trained, adapters = load_trainable(directory, dropout=0.0, expert_dropout=0.0)
    expected = states(trained)
    torch.testing.assert_close(states(load_adapted(directory)), expected, rtol=1e-4, atol=1e-4)
    again = tmp_path / "again"
    save_adapted(again, adapters.config, adapters.tensors(), base=directory)
    for name in ("model.safetensors", "adapter_model.safetensors", "config.json", "adapter_config.json"):
        assert (again / name).read_bytes() == (directory / name).read_bytes(), name
    assert not torch.allclose(expected, states(load_checkpoint(directory)), atol=1e-2)


def test_16_bit_adapters_come_back_as_they_were_stored(tmp_path: Path) -> None:
    directory = save_tiny_adapted(tmp_path / "model", dtype="bfloat16")
    stored = load_file(directory / "adapter_model.safetensors")
    assert stored["layers.0.up_proj.lora_A"].dtype == torch.bfloat16
    assert stored["layers.0.mlp.router.weight"].dtype == torch.float32
    _, adapters = load_trainable(directory)
    tensors = adapters.tensors()
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    exact, rounded = states(load_adapted(directory)), states(load_adapted(directory, dtype=torch.bfloat16)).float()
    assert (rounded - exact).norm() / exact.norm() < 0.05


def test_the_base_stays_a_checkpoint_of_its_own(adapted: Path) -> None:
    base = adapted.parent / "model-base"
    assert (adapted / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert torch.equal(states(load_checkpoint(adapted)), states(load_checkpoint(base)))


def test_a_directory_without_adapters_loads_as_the_plain_model(adapted: Path) -> None:
    base = adapted.parent / "model-base"
    assert not has_adapter(base)
    assert torch.equal(states(load_adapted(base)), states(load_checkpoint(base)))


def rewrite(directory: Path, **changes: torch.Tensor | None) -> None:
    path = directory / "adapter_model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


FIRST = "layers.0.up_proj.lora_A"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({FIRST: None}, f"missing: {FIRST}"),
        ({"layers.0.mlp.router.weight": None}, r"missing: layers\.0\.mlp\.router\.weight"),
        ({"layers.0.extra": torch.zeros(1)}, r"unknown: layers\.0\.extra"),
        ({FIRST: torch.zeros(6, 64)}, r"lora_A is \(6, 64\), expected \(5, 64\)"),
        ({FIRST: torch.zeros(5, 64, dtype=torch.bfloat16)}, "stored as torch.bfloat16, expected torch.float32"),
        ({FIRST: torch.full((5, 64), torch.nan)}, "not finite"),
    ],
    ids=["missing", "no-router", "unknown", "misshapen", "dtype", "nan"],
)
def test_tensors_that_do_not_fit_are_named(copy: Path, changes: dict[str, torch.Tensor | None], message: str) -> None:
    rewrite(copy, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_adapted(copy)


def test_a_file_that_is_no_safetensors_is_refused(copy: Path) -> None:
    (copy / "adapter_model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_adapted(copy)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match="without the other adapter file"):
        load_adapted(copy)


def test_the_weights_of_another_adapter_on_the_same_base_are_refused(copy: Path) -> None:
    path = copy / "adapter_model.safetensors"
    tensors = {name: tensor * 2 for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"not the file that adapter_config\.json was written for"):
        load_adapted(copy)


def test_links_that_lead_nowhere_are_no_plain_model(copy: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (copy / name).unlink()
        (copy / name).symlink_to(copy / "nowhere")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_adapted(copy)


def test_the_adapter_of_another_base_is_refused(copy: Path, tmp_path: Path) -> None:
    other = save_tiny_checkpoint(tmp_path / "other", seed=5, moe_layers=())
    shutil.copyfile(other / "model.safetensors", copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="other weights"):
        load_adapted(copy)


def test_a_base_whose_architecture_was_edited_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["rope_theta"] = 5e5
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="another architecture"):
        load_adapted(copy)


def test_adapters_on_a_base_with_moe_layers_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["moe_layers"] = [0]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="dense base"):
        read_adapter(copy)


def test_saving_is_as_strict_as_loading_and_leaves_nothing_behind(adapted: Path, tmp_path: Path) -> None:
    config, tensors = read_adapter(adapted)
    broken = tensors | {FIRST: torch.full((5, 64), torch.inf)}
    with pytest.raises(CheckpointError, match="not finite"):
        save_adapted(tmp_path / "out", config, broken, base=adapted)
    other = save_tiny_checkpoint(tmp_path / "other", seed=5, moe_layers=())
    with pytest.raises(CheckpointError, match="other weights"):
        save_adapted(tmp_path / "out", config, tensors, base=other)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_the_adapted_model_may_have_a_name_of_its_own(adapted: Path, tmp_path: Path) -> None:
    config, tensors = read_adapter(adapted)
    save_adapted(tmp_path / "named", config, tensors, base=adapted, name="tiny-lora")
    assert load_adapted(tmp_path / "named").config.name == "tiny-lora"


def test_training_without_adapter_files_is_refused(adapted: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no adapter_config\.json"):
        load_trainable(adapted.parent / "model-base")


def test_the_identity_of_a_base_is_its_name_and_both_digests(adapted: Path) -> None:
    config, _ = read_adapter(adapted)
    assert base_identity(adapted.parent / "model-base") == config.base


def test_an_adapter_without_its_bases_digests_cannot_be_saved(adapted: Path) -> None:
    """Configuration and tensors fit each other and the shapes, but were not made for this base."""
    base = load_checkpoint(adapted).config
    config = tiny_adapter(base)
    with pytest.raises(CheckpointError, match="another architecture"):
        save_adapted(adapted.parent / "x", config, random_tensors(config, base), base=adapted)
