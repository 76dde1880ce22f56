"""A file written tensor by tensor is the file that safetensors reads."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medmoe.model.checkpoint.tensor_writer import TensorSpec, TensorWriter

TENSORS = {
    "a": torch.randn(3, 4),
    "b": torch.randn(5).to(torch.bfloat16),
    "transposed": torch.randn(4, 6).to(torch.float16).t(),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5),
}


def specs(tensors: dict[str, torch.Tensor]) -> list[TensorSpec]:
    return [TensorSpec(name, value.dtype, tuple(value.shape)) for name, value in tensors.items()]


def test_every_value_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with TensorWriter(path, specs(TENSORS)) as writer:
        for name, value in TENSORS.items():
            writer.write(name, value)
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    assert writer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_tensor_larger_than_a_write_comes_back(tmp_path: Path) -> None:
    large = torch.arange(33 * 2**20, dtype=torch.float32).to(torch.bfloat16)
    with TensorWriter(tmp_path / "x", [TensorSpec("large", large.dtype, tuple(large.shape))]) as writer:
        writer.write("large", large)
    assert torch.equal(load_file(tmp_path / "x")["large"], large)


def test_another_tensor_than_announced_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="was announced"),
        TensorWriter(tmp_path / "x", specs(TENSORS)) as writer,
    ):
        writer.write("a", torch.randn(4, 3))


def test_a_file_with_missing_tensors_is_no_success(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="4 announced"),
        TensorWriter(tmp_path / "x", specs(TENSORS)) as writer,
    ):
        writer.write("a", TENSORS["a"])
