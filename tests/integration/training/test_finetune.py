"""`medmoe finetune` on forty coloured images of two labels: better afterwards, resumable, and nothing half-written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.errors import ConfigError
from medmoe.training.evaluation.predict.predictors import LocalPredictor
from medmoe.training.finetune.__main__ import app
from medmoe.training.finetune.run import Finetune
from tests.support.checkpoints.tiny import save_tiny_checkpoint

torch.set_num_threads(1)
COLOURS = {"CT": (220, 30, 30), "MRI": (30, 30, 220)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    noise = np.random.default_rng(0)
    for number in range(40):
        label = list(COLOURS)[number % 2]
        (root / label).mkdir(exist_ok=True)
        pixels = np.clip(np.array(COLOURS[label]) + noise.normal(0, 25, (32, 32, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def accuracy(checkpoint: Path, data: Path) -> float:
    samples = Finetune(checkpoint=checkpoint, data=data, output=checkpoint).split().test
    answers = {found.id: found.text for found in LocalPredictor.from_checkpoint(checkpoint).predict(samples)}
    return sum(answers[sample.id] == sample.answer for sample in samples) / len(samples)


def test_the_labels_of_held_out_images_are_learnt_and_routers_stay(base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "tuned"
    result = run(base, data, "--output", output, "--epochs", 24, "--learning-rate", 1e-3)
    assert result.exit_code == 0, result.output
    assert accuracy(output, data) == 1.0 > accuracy(base, data)
    assert "40 images are few" in result.output
    assert f"MEDMOE_MODEL={output} medmoe serve" in result.output
    assert "Labels: CT, MRI." in (output / "README.md").read_text()
    assert json.loads((output / "config.json").read_text())["name"] == "tuned"
    before, after = load_checkpoint(base).state_dict(), load_checkpoint(output).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(".mlp.experts." in name for name in moved)
    assert any(".mlp.shared_expert." in name for name in moved)
    assert not any(".mlp.gate." in name or name.startswith("vision_tower.") for name in moved)
    assert not output.with_name("tuned.work").exists()


def test_a_killed_run_continues_with_the_same_command_alone(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "tuned"
    with monkeypatch.context() as patch:
        patch.setattr("medmoe.training.finetune.run.comparison", _killed)
        tuned = Finetune(checkpoint=base, data=data, output=output, epochs=2)
        split = tuned.split()
        with pytest.raises(KeyboardInterrupt):
            tuned(split)
    assert not output.exists()
    refused = run(base, data, "--output", output, "--epochs", 3)
    assert refused.exit_code == 1
    assert "another command or data" in refused.output
    result = run(base, data, "--output", output, "--epochs", 2)
    assert result.exit_code == 0, result.output
    assert "continued after epoch 2" in result.output
    assert (output / "model.safetensors").exists()


def _killed(*_: object) -> str:
    raise KeyboardInterrupt


def test_adapters_alone_are_trained_on_a_dense_base(data: Path, tmp_path: Path) -> None:
    dense = save_tiny_checkpoint(tmp_path / "dense", moe_layers=())
    result = run(dense, data, "--output", tmp_path / "tuned", "--epochs", 1, "--method", "lora")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "tuned" / "adapter_model.safetensors").exists()


def test_check_says_what_was_understood_and_trains_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    result = run(base, data, "--output", tmp_path / "tuned", "--check")
    assert result.exit_code == 0
    assert "read as: a folder for each label" in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused_in_one_line(base: Path, data: Path, tmp_path: Path) -> None:
    tuned = Finetune(checkpoint=base, data=data, output=tmp_path / "tuned", method="lora")
    split = tuned.split()
    with pytest.raises(ConfigError, match="adapters need a dense base"):
        tuned(split)
    (tmp_path / "file").write_text("x")
    blocked = run(base, data, "--output", tmp_path / "file" / "tuned")
    assert blocked.exit_code == 1
    assert blocked.output.splitlines()[-1].startswith("error: ")
    assert "cannot be written" in blocked.output
