"""Weights are found, read and hashed as one file or as shards, and never as a mixture of both."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmoe.model.checkpoint.io import load_checkpoint, model_tensors, save_checkpoint
from medmoe.model.checkpoint.tokenizer_files import tokenizer_files
from medmoe.model.errors import CheckpointError
from medmoe.model.files.weight_files import WEIGHTS_INDEX_FILE, WeightFiles, shard_name, weights_sha256
from medmoe.model.inspection.inspect import inspect_checkpoint
from tests.support.checkpoints.tiny import save_tiny_checkpoint

TOWER, REST = shard_name(1, count=2), shard_name(2, count=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("sharded") / "tiny", tower_shard=True)


@pytest.fixture
def sharded(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def test_shards_hold_what_one_file_holds(saved: Path, tmp_path: Path) -> None:
    model = load_checkpoint(saved)
    save_checkpoint(model, tmp_path / "whole", tokenizer_files=tokenizer_files(saved))
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    parts = load_file(saved / TOWER), load_file(saved / REST)
    assert not parts[0].keys() & parts[1].keys()
    assert {name.split(".")[0] for name in parts[0]} == {"vision_tower"}
    assert all(torch.equal(whole.pop(name), value) for part in parts for name, value in part.items())
    assert not whole
    report, expected = inspect_checkpoint(saved), inspect_checkpoint(tmp_path / "whole")
    assert report.fits_config
    assert report.parameters == expected.parameters
    assert report.tensors == expected.tensors


def test_the_towers_bytes_depend_on_the_tower_alone(saved: Path, tmp_path: Path) -> None:
    model = load_checkpoint(saved)
    with torch.no_grad():
        model.projector.linear_1.bias += 1
    save_checkpoint(model, tmp_path / "other", tokenizer_files=tokenizer_files(saved), tower_shard=True)
    assert (tmp_path / "other" / TOWER).read_bytes() == (saved / TOWER).read_bytes()
    assert (tmp_path / "other" / WEIGHTS_INDEX_FILE).read_bytes() == (saved / WEIGHTS_INDEX_FILE).read_bytes()
    assert weights_sha256(tmp_path / "other") != weights_sha256(saved)


def test_the_digest_is_what_sha256sum_gives(saved: Path) -> None:
    command = f"sha256sum {WEIGHTS_INDEX_FILE} model-*-of-*.safetensors | sha256sum"
    printed = subprocess.run(["sh", "-c", command], cwd=saved, capture_output=True, check=True).stdout.decode()
    assert weights_sha256(saved) == printed.split()[0]


def test_a_shard_that_the_index_does_not_name_is_not_read(sharded: Path) -> None:
    before = weights_sha256(sharded)
    (sharded / shard_name(3, count=3)).write_bytes((sharded / REST).read_bytes())
    assert weights_sha256(sharded) == before
    tensors = model_tensors(load_checkpoint(sharded))
    assert len(WeightFiles.of(sharded).tensors()) == len(tensors)


def test_saving_over_shards_leaves_none_behind(sharded: Path, tmp_path: Path) -> None:
    model = load_checkpoint(sharded)
    kept = tmp_path / "kept"
    kept.mkdir()
    files = [Path(shutil.copy(path, kept)) for path in tokenizer_files(sharded)]
    save_checkpoint(model, sharded, tokenizer_files=files, replace=True)
    assert {path.name for path in sharded.glob("model*")} == {"model.safetensors"}


def _renamed_in_index(directory: Path, name: str) -> None:
    index = json.loads((directory / WEIGHTS_INDEX_FILE).read_text())
    index["weight_map"] = {tensor: name if file == REST else file for tensor, file in index["weight_map"].items()}
    (directory / WEIGHTS_INDEX_FILE).write_text(json.dumps(index))


def _moved(directory: Path) -> None:
    tower, rest = load_file(directory / TOWER), load_file(directory / REST)
    name = next(iter(tower))
    rest[name] = tower.pop(name)
    save_file(tower, directory / TOWER)
    save_file(rest, directory / REST)


def _repeated(directory: Path) -> None:
    tower, rest = load_file(directory / TOWER), load_file(directory / REST)
    save_file(rest | dict([next(iter(tower.items()))]), directory / REST)


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: (d / TOWER).unlink(), rf"lacks shards .* names: {TOWER}"),
    (lambda d: (d / TOWER).write_bytes(b"garbage"), rf"{TOWER} cannot be read as safetensors"),
    (lambda d: (d / "model.safetensors").write_bytes(b"x"), "holds both model.safetensors and"),
    (lambda d: (d / WEIGHTS_INDEX_FILE).write_text("[]"), "is no index of safetensors shards"),
    (lambda d: (d / WEIGHTS_INDEX_FILE).write_text('{"weight_map": {"x": [1]}}'), "is no index of safetensors shards"),
    (lambda d: _renamed_in_index(d, "../model.safetensors"), "names other files than"),
    (lambda d: _renamed_in_index(d, shard_name(3, count=3)), "names other files than"),
    (lambda d: (d / WEIGHTS_INDEX_FILE).unlink(), "has no model.safetensors"),
    (_moved, "differ about where they lie: vision_tower"),
    (_repeated, "both hold vision_tower"),
]


@pytest.mark.parametrize(("damage", "message"), REFUSED)
def test_anything_else_is_refused(sharded: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(sharded)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(sharded)
