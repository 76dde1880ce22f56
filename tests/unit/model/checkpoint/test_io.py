"""A checkpoint directory is read strictly and written whole or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmoe.model.checkpoint.io import load_checkpoint, model_tensors, save_checkpoint
from medmoe.model.checkpoint.tokenizer_files import tokenizer_files
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import CheckpointError
from tests.support.checkpoints.tiny import save_tiny_checkpoint


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path / "tiny")


def rewrite(directory: Path, change: dict[str, torch.Tensor | None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    for name, value in change.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, directory / "model.safetensors")


def test_round_trip_keeps_every_value(directory: Path, tmp_path: Path) -> None:
    model = load_checkpoint(directory)
    save_checkpoint(model, tmp_path / "again", tokenizer_files=tokenizer_files(directory))
    again = model_tensors(load_checkpoint(tmp_path / "again"))
    assert again.keys() == model_tensors(model).keys()
    assert all(torch.equal(again[name], value) for name, value in model_tensors(model).items())


def test_a_missing_tensor_is_named(directory: Path) -> None:
    rewrite(directory, {"projector.linear_1.bias": None})
    with pytest.raises(CheckpointError, match=r"missing: projector\.linear_1\.bias"):
        load_checkpoint(directory)


def test_an_unknown_tensor_is_named(directory: Path) -> None:
    rewrite(directory, {"language_model.extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"unknown: language_model\.extra"):
        load_checkpoint(directory)


def test_a_misshapen_tensor_is_named_with_both_shapes(directory: Path) -> None:
    rewrite(directory, {"projector.linear_1.bias": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"projector\.linear_1\.bias is \(3,\), expected \(64,\)"):
        load_checkpoint(directory)


def test_a_pickle_is_never_opened(directory: Path) -> None:

    torch.save({"weight": torch.zeros(1)}, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_checkpoint(directory)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, (2**63).to_bytes(8, "little") + b"{}"])
def test_garbage_is_refused(directory: Path, content: bytes) -> None:
    (directory / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(directory)


def test_a_truncated_file_is_refused(directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        load_checkpoint(directory)


def test_a_failed_save_leaves_the_old_directory_and_no_rubbish(directory: Path, tmp_path: Path) -> None:
    model = load_checkpoint(directory)
    before = (directory / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.projector.linear_1.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        save_checkpoint(model, directory, tokenizer_files=[], replace=True)
    assert (directory / "model.safetensors").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_user_can_read_what_was_saved(directory: Path) -> None:
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in [directory, *directory.iterdir()])


def test_saving_over_a_checkpoint_replaces_it_when_asked(directory: Path, tmp_path: Path) -> None:
    model = load_checkpoint(directory)
    (directory / "calibration.json").touch()
    save_checkpoint(model, directory, tokenizer_files=tokenizer_files_copy(directory, tmp_path), replace=True)
    assert not (directory / "calibration.json").exists()
    load_checkpoint(directory)


def test_saving_over_anything_is_refused_unless_asked(directory: Path) -> None:
    model = load_checkpoint(directory)
    with pytest.raises(CheckpointError, match="not empty"):
        save_checkpoint(model, directory, tokenizer_files=[])


def test_a_config_that_promises_more_than_the_file_holds_costs_nothing(directory: Path) -> None:
    config = MedMoEConfig.from_directory(directory)
    text = {"num_experts": 1024, "num_hidden_layers": 1024, "moe_layers": tuple(range(1024))}
    vast = config.model_copy(update={"expert_domains": (), "text_config": config.text_config.model_copy(update=text)})
    (directory / "config.json").write_text(vast.to_json())
    with pytest.raises(CheckpointError, match="alone need 1049602"):
        load_checkpoint(directory)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bool], ids=str)
def test_other_kinds_of_numbers_are_refused(directory: Path, dtype: torch.dtype) -> None:
    tensors = load_file(directory / "model.safetensors")
    name = "projector.linear_1.bias"
    tensors[name] = torch.zeros_like(tensors[name]).to(dtype)
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"floating point numbers of 16, 32 or 64 bits: {name}"):
        load_checkpoint(directory)


def test_numbers_beyond_float32_are_refused(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    name = "projector.linear_1.bias"
    tensors[name] = torch.full_like(tensors[name], 1e300, dtype=torch.float64)
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{name} holds values that are not finite"):
        load_checkpoint(directory)


def tokenizer_files_copy(directory: Path, tmp_path: Path) -> list[Path]:
    kept = tmp_path / "kept"
    kept.mkdir()
    for source in tokenizer_files(directory):
        (kept / source.name).write_bytes(source.read_bytes())
    return tokenizer_files(kept)
