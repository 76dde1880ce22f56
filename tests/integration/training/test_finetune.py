"""`medmoe finetune` on forty coloured images of two labels: better afterwards, resumable, and nothing half-written."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.files.licence import stated_licence
from medmoe.model.prompt import Prompt
from medmoe.model.unlike_training.scorer import UnlikeTraining
from medmoe.model.unlike_training.tower_digest import tower_sha256
from medmoe.training.evaluation.predict.predictors import LocalPredictor
from medmoe.training.finetune.__main__ import app
from medmoe.training.finetune.data import read_own_data
from medmoe.training.finetune.run import Finetune
from medmoe.training.finetune.split import split_own_data
from medmoe.training.run_directory import sole_run
from medmoe.training.unlike_training.drawn_images import draw
from medmoe.training.unlike_training.fit import FitData
from medmoe.training.unlike_training.measure import fit_reference, score
from medmoe.training.unlike_training.pooled_features import FeaturePooling, PooledFeatures
from medmoe.training.unlike_training.write import write_reference
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
    directory = save_tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")
    write_base_reference(directory)
    (directory / "README.md").write_text("---\nlicense: CC-BY-4.0\n---\n# tiny\n")
    return directory


def write_base_reference(directory: Path) -> None:
    """Write a reference that knows grey gradients alone."""
    pooled = pool(directory, [draw("gradient", seed).convert("L").convert("RGB") for seed in range(100)])
    drawn = pool(directory, [draw("screenshot", seed) for seed in range(20)])
    fitted = FitData(
        train=pooled.rows(range(60)), datasets=["base"] * 60, held_out=pooled.rows(range(60, 100)), drawn=drawn
    )
    digest = tower_sha256(directory, MedMoEConfig.from_directory(directory))
    write_reference(
        directory, *fit_reference(fitted, tower_sha256=digest, datasets=["base"], images=60, false_alarms=0.03)
    )


def pool(directory: Path, images: Sequence[Image.Image]) -> PooledFeatures:
    return FeaturePooling(load_checkpoint(directory), folder=directory.parent / "features").images(images)


def flagged(directory: Path, images: Sequence[Image.Image]) -> float:
    """Return the share of images that the checkpoint flags."""
    unlike = UnlikeTraining.from_directory(directory, MedMoEConfig.from_directory(directory))
    assert unlike is not None
    return float((score(unlike, pool(directory, images)) > unlike.reference.threshold).float().mean())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def accuracy(checkpoint: Path, data: Path) -> float:
    samples = split_own_data(read_own_data(data), seed=0).test
    answers = {found.id: found.text for found in LocalPredictor.from_checkpoint(checkpoint).predict(samples)}
    return sum(answers[sample.id] == sample.answer for sample in samples) / len(samples)


def test_the_labels_of_held_out_images_are_learnt_and_routers_stay(base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "tuned"
    result = run(base, data, "--output", output, "--epochs", 24, "--learning-rate", 1e-3)
    assert result.exit_code == 0, result.output
    assert accuracy(output, data) == 1.0 > accuracy(base, data)
    assert "40 images are few" in result.output
    assert f"serve it: medmoe serve {output}\nask it: medmoe classify IMAGE CT MRI\n" in result.output
    assert "Labels: CT, MRI." in (output / "README.md").read_text()
    assert stated_licence(output) == "CC-BY-4.0"
    assert json.loads((output / "config.json").read_text())["name"] == "tuned"
    before, after = load_checkpoint(base).state_dict(), load_checkpoint(output).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(".mlp.experts." in name for name in moved)
    assert any(".mlp.shared_expert." in name for name in moved)
    assert not any(".mlp.gate." in name or name.startswith("vision_tower.") for name in moved)
    embeddings = [state["language_model.model.embed_tokens.weight"] for state in (before, after)]
    changes = (embeddings[1] - embeddings[0]).norm(dim=1) / embeddings[0].norm(dim=1)
    answers = Prompt.from_directory(base, MedMoEConfig.from_directory(base))
    of_labels = [answers.answer(label)[0] for label in COLOURS]
    others = sorted({*range(len(changes))} - {id_ for label in COLOURS for id_ in answers.answer(label)})
    assert changes[of_labels].min() > 0.02
    assert changes[others].median() < 0.002
    assert not output.with_name("tuned.work").exists()
    own = [Image.open(path).convert("RGB") for path in sorted(data.rglob("*.png"))]
    assert flagged(base, own) == 1.0
    assert flagged(output, own) <= 0.05
    drawn = np.random.default_rng(1)
    noise = [Image.fromarray(drawn.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(20)]
    assert flagged(output, noise) >= 0.8
    assert flagged(output, [draw("screenshot", 500 + seed) for seed in range(20)]) >= 0.8
    assert (
        "## Which images it does not know\n\nOf images that are no medical ones" in (output / "README.md").read_text()
    )


def test_a_killed_run_continues_with_the_same_command_alone(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "tuned"
    with monkeypatch.context() as patch:
        patch.setattr("medmoe.training.finetune.run.comparison", _killed)
        tuned = Finetune(checkpoint=base, output=output, epochs=2)
        split = split_own_data(read_own_data(data), seed=0)
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


def test_an_output_may_be_a_link_to_an_empty_folder_and_have_any_name(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "large disk" / "tuned").mkdir(parents=True)
    output = tmp_path / "my model (2)"
    output.symlink_to(tmp_path / "large disk" / "tuned")
    result = run(base, data, "--output", output, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert output.is_symlink()
    assert [path.name for path in (tmp_path / "large disk").iterdir()] == ["tuned"]
    assert load_checkpoint(output).config.name == "my-model-2"
    assert f"serve it: {shlex.join(['medmoe', 'serve', str(output)])}\n" in result.output


def test_a_second_run_at_the_same_time_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with sole_run(tmp_path / "tuned.work"):
        refused = run(base, data, "--output", tmp_path / "tuned")
    assert refused.exit_code == 1
    assert "another process is writing to" in refused.output


def test_a_folder_of_the_users_own_is_not_removed_as_working_files(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "tuned.work").mkdir()
    (tmp_path / "tuned.work" / "thesis.tex").write_text("x")
    refused = run(base, data, "--output", tmp_path / "tuned")
    assert refused.exit_code == 1
    assert "holds files of something else" in refused.output
    assert (tmp_path / "tuned.work" / "thesis.tex").exists()


@pytest.mark.parametrize("changed", ["answer", "labels"])
def test_a_killed_run_is_not_continued_with_other_labels(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(Finetune, "_tell_duration", _killed)
    rows = [f"{image},{image.parent.name}" for image in sorted(data.rglob("*.png"))]
    later = {"answer": [*rows[:-1], rows[-1].replace(",MRI", ",CT")], "labels": [*rows, "gone.png,ultrasound"]}[changed]
    for some, status in ((rows, 130), (rows, 130), (later, 1)):
        (tmp_path / "own.csv").write_text("\n".join(["image,label", *some]))
        found = run(base, tmp_path / "own.csv", "--output", tmp_path / "tuned")
        assert found.exit_code == status, found.output
    assert "another command or data" in found.output


def test_a_killed_run_is_not_continued_on_other_replayed_data(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = Path(shutil.copytree(data, tmp_path / "earlier"))
    for number, image in enumerate(sorted(earlier.rglob("*.png"))):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(image)
    monkeypatch.setattr(Finetune, "_tell_duration", _killed)
    options = ("--output", tmp_path / "tuned", "--replay", earlier)
    assert run(base, data, *options).exit_code == 130
    assert run(base, data, *options).exit_code == 130
    for image in earlier.rglob("*.png"):
        Image.open(image).rotate(90).save(image)
    refused = run(base, data, *options)
    assert refused.exit_code == 1
    assert "another command or data" in refused.output


def test_the_refusal_of_other_data_shows_no_question_and_no_answer(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finetune, "_tell_duration", _killed)
    images = sorted(data.rglob("*.png"))
    for answer, status in (("jaundice", 130), ("cirrhosis", 1)):
        rows = [f"{image},Has Jane Doe a lesion?,{answer}\n" for image in images]
        (tmp_path / "own.csv").write_text("".join(["image,question,answer\n", *rows]))
        found = run(base, tmp_path / "own.csv", "--output", tmp_path / "tuned")
        assert found.exit_code == status, found.output
    assert "another command or data" in found.output
    assert not any(word in found.output for word in ("Jane", "jaundice", "cirrhosis"))


def _killed(*_: object, **__: object) -> str:
    raise KeyboardInterrupt


def test_adapters_alone_are_trained_on_a_dense_base(data: Path, tmp_path: Path) -> None:
    dense = save_tiny_checkpoint(tmp_path / "dense", moe_layers=())
    result = run(dense, data, "--output", tmp_path / "tuned", "--epochs", 1, "--method", "lora")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "tuned" / "adapter_model.safetensors").exists()
    assert "The base has no training_reference.safetensors" in result.output
    assert "answers to other questions about the test images stayed as they were" in result.output
    assert not (tmp_path / "tuned" / "training_reference.safetensors").exists()


def test_check_says_what_was_understood_and_trains_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    result = run(base, data, "--output", tmp_path / "tuned", "--check")
    assert result.exit_code == 0
    assert "read as: a folder for each label" in result.output
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "x").write_text("")
    assert run(base, data, "--check").output == result.output
    assert run(base, data).exit_code == 2
    refused = run(base, data, "--output", tmp_path / "tuned", "--check")
    assert refused.exit_code == 1
    assert "exists and is not empty" in refused.output


def test_what_does_not_fit_is_refused_in_one_line(base: Path, data: Path, tmp_path: Path) -> None:
    tuned = Finetune(checkpoint=base, output=tmp_path / "tuned", method="lora")
    split = split_own_data(read_own_data(data), seed=0)
    with pytest.raises(ConfigError, match="adapters need a dense base"):
        tuned(split)
    (tmp_path / "file").write_text("x")
    blocked = run(base, data, "--output", tmp_path / "file" / "tuned")
    assert blocked.exit_code == 1
    assert blocked.output.splitlines()[-1].startswith("error: ")
    assert "cannot be written" in blocked.output
