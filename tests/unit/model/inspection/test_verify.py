"""Without torch, inspection notices experts, layers and adapters that are not what the configuration promises."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmoe.model.checkpoint.io import expected_shapes
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError
from medmoe.model.inspection.inspect import inspect_checkpoint
from medmoe.model.inspection.tensor_shapes import tensor_shapes
from medmoe.model.inspection.verify import verify_weights
from tests.support.checkpoints.tiny import save_tiny_checkpoint, tiny_config
from tests.support.checkpoints.tiny_lora import save_tiny_adapted

LAYER = "language_model.model.layers.0."
NORMED = {"input_norm": "layer_norm"}


@pytest.mark.parametrize("model_type", ["llama", "phi", "stablelm"])
@pytest.mark.parametrize("fields", [{}, {"moe_layers": ()}, {"residual": True}, {"shared_expert": False}, NORMED])
def test_a_whole_checkpoint_fits(tmp_path: Path, model_type: str, fields: dict[str, object]) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny", model_type=model_type, **fields)
    found = inspect_checkpoint(directory)
    assert found.fits_config
    assert found.problems == ()


@pytest.mark.parametrize(
    ("gone", "added", "match"),
    [
        (".layers.0.mlp.experts.", None, r"missing: .*layers\.0\.mlp\.experts\.0"),
        (".layers.0.mlp.experts.3.", None, r"missing: .*experts\.3"),
        (".layers.0.mlp.gate.bias", None, r"missing: .*layers\.0\.mlp\.gate\.bias"),
        ("projector.linear_2.weight", None, r"missing: projector\.linear_2"),
        (None, "projector.input_norm.weight", r"unknown: projector\.input_norm\.weight"),
        (None, f"{LAYER}mlp.experts.4.up_proj.weight", r"unknown: .*experts\.4"),
        (None, "language_model.model.layers.1.mlp.gate.weight", r"unknown: .*layers\.1\.mlp\.gate"),
        (None, "language_model.model.layers.77.mlp.up_proj.weight", r"unknown: .*layers\.77"),
        (None, "mystery\x1b", r"unknown: mystery\\x1b"),
    ],
)
def test_what_is_missing_or_too_much_is_named(tmp_path: Path, gone: str, added: str, match: str) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    tensors = {n: v for n, v in load_file(directory / "model.safetensors").items() if not gone or gone not in n}
    save_file(tensors | ({added: torch.zeros(1)} if added else {}), directory / "model.safetensors")
    found = inspect_checkpoint(directory)
    assert not found.fits_config
    assert [problem for problem in found.problems if re.search(match, problem)]


def test_a_norm_that_config_json_promises_is_missed(tmp_path: Path) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny", input_norm="layer_norm")
    tensors = {n: v for n, v in load_file(directory / "model.safetensors").items() if "input_norm.bias" not in n}
    save_file(tensors, directory / "model.safetensors")
    assert inspect_checkpoint(directory).problems == ("missing: projector.input_norm.bias",)


def test_a_promise_of_many_experts_costs_nothing(tmp_path: Path) -> None:
    config = MedMoEConfig.from_directory(save_tiny_checkpoint(tmp_path / "tiny"))
    (problem,) = verify_weights(config, {})
    assert len(problem) < 2000


TEXTS: list[dict[str, object]] = [
    {},
    {"residual": True},
    {"shared_expert": False, "gate_bias": False},
    {"model_type": "phi", "num_key_value_heads": 2},
    {"model_type": "stablelm", "tie_word_embeddings": True},
    {"model_type": "stablelm", "qkv_bias": False, "moe_layers": ()},
]


@pytest.mark.parametrize("tower", ["dinov2", "clip", "siglip"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_shapes_without_torch_are_those_of_the_built_model(tower: str, text: dict[str, object]) -> None:
    config = tiny_config(tower=tower, input_norm="layer_norm" if text else "none", **text)
    assert tensor_shapes(config) == expected_shapes(config)


def test_a_changed_width_in_config_json_is_named(tmp_path: Path) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 160
    (directory / "config.json").write_text(json.dumps(config))
    found = inspect_checkpoint(directory)
    assert not found.fits_config
    assert "mlp.experts.0.down_proj.weight is (64, 128), expected (64, 160)" in "; ".join(found.problems)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gate_that_is_not_finite_is_named(tmp_path: Path, dtype: torch.dtype) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(directory / "model.safetensors").items()}
    save_file(tensors, directory / "model.safetensors")
    assert inspect_checkpoint(directory).problems == ()
    tensors[f"{LAYER}mlp.gate.weight"][1, 1] = torch.nan
    save_file(tensors, directory / "model.safetensors")
    assert inspect_checkpoint(directory).problems == (f"not finite numbers: {LAYER}mlp.gate.weight",)


def test_numbers_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    directory = save_tiny_checkpoint(tmp_path / "tiny")
    name = f"{LAYER}self_attn.o_proj.weight"
    tensors = load_file(directory / "model.safetensors")
    save_file(tensors | {name: tensors[name].to(torch.int32)}, directory / "model.safetensors")
    (problem,) = inspect_checkpoint(directory).problems
    assert problem == f"not stored as floating point numbers of 16, 32 or 64 bits: {name}"


@pytest.mark.parametrize("kept", [4, 100, -1])
def test_a_truncated_file_is_said_to_be_incomplete(tmp_path: Path, kept: int) -> None:
    path = save_tiny_checkpoint(tmp_path / "tiny") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read .* damaged or incomplete"):
        inspect_checkpoint(path.parent)


def test_an_adapter_of_another_base_is_named(tmp_path: Path) -> None:
    first, other = (save_tiny_adapted(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert inspect_checkpoint(first).fits_config
    (first / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    assert any("other weights" in problem for problem in inspect_checkpoint(first).problems)
    assert inspect_checkpoint(first, digests=False).fits_config


def test_tensors_of_another_adapter_on_the_same_base_are_named(tmp_path: Path) -> None:
    directory = save_tiny_adapted(tmp_path / "tiny")
    tensors = load_file(directory / "adapter_model.safetensors")
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, directory / "adapter_model.safetensors")
    (problem,) = inspect_checkpoint(directory).problems
    assert problem == "the adapter's tensors are not those that adapter_config.json was written for"
    assert inspect_checkpoint(directory, digests=False).fits_config


def test_an_adapter_in_another_dtype_is_named(tmp_path: Path) -> None:
    directory = save_tiny_adapted(tmp_path / "tiny")
    tensors = load_file(directory / "adapter_model.safetensors")
    wrong = ["layers.0.gate_proj.lora_A", "layers.0.mlp.router.weight"]
    save_file(tensors | {name: tensors[name].half() for name in wrong}, directory / "adapter_model.safetensors")
    found = inspect_checkpoint(directory, digests=False)
    assert found.problems == (f"the adapter's tensors: not stored as adapter_config.json says: {', '.join(wrong)}",)


def test_an_adapter_with_a_hole_is_named(tmp_path: Path) -> None:
    directory = save_tiny_adapted(tmp_path / "tiny")
    tensors = load_file(directory / "adapter_model.safetensors")
    del tensors["layers.0.gate_proj.lora_A"]
    tensors["layers.0.gate_proj.lora_B"] = torch.zeros(1, 1)
    save_file(tensors, directory / "adapter_model.safetensors")
    problems = "; ".join(inspect_checkpoint(directory).problems)
    assert "the adapter's tensors: missing: layers.0.gate_proj.lora_A" in problems
    assert "the adapter's tensors: misshapen: layers.0.gate_proj.lora_B" in problems
