"""A reference flags few images like its own and nearly all others, and the command writes and measures it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.config import MedMoEConfig
from medmoe.model.unlike_training.scorer import UnlikeTraining, parts
from medmoe.training.data.errors import DataError
from medmoe.training.unlike_training import pooled_features
from medmoe.training.unlike_training.__main__ import app
from medmoe.training.unlike_training.drawn_images import KINDS, draw
from medmoe.training.unlike_training.extend import FurtherImages, extend_reference
from medmoe.training.unlike_training.fit import NEIGHBOURS, FitData, choose_evenly, spacing
from medmoe.training.unlike_training.measure import fit_reference, measure, score
from medmoe.training.unlike_training.pooled_features import FeaturePooling, PooledFeatures
from tests.support.checkpoints.tiny import save_tiny_checkpoint

WIDTH = 48


def features(count: int, *, seed: int, shift: float = 0.0) -> PooledFeatures:
    """Return features of one kind: `shift` moves them along half of the dimensions."""
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.randn(2, count, WIDTH, generator=generator)
    mean[:, : WIDTH // 2] += shift
    return PooledFeatures(mean=mean, std=std.abs() + 0.1)


def data(train: int = 400, held_out: int = 200) -> FitData:
    return FitData(
        train=features(train, seed=0),
        datasets=["d"] * train,
        held_out=features(held_out, seed=1),
        drawn=features(60, seed=2, shift=-4),
    )


def test_the_threshold_flags_the_share_of_held_out_images_that_was_asked_for() -> None:
    made, tensors = fit_reference(data(), tower_sha256="0" * 64, datasets=["d"], images=300, false_alarms=0.05)
    unlike = UnlikeTraining(made, tensors)
    rate = float((score(unlike, data().held_out) > made.threshold).float().mean())
    assert made.false_alarms.rate == pytest.approx(rate) == pytest.approx(0.05, abs=0.006)
    assert made.references.images == 300
    known, held_out = data().train.mean.numpy(), data().held_out
    # The file holds 16 bits.
    np.testing.assert_allclose(tensors.mean_centre, known.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(tensors.mean_scale, known.std(axis=0), rtol=1e-3)
    components = tensors.mean_components.numpy()
    np.testing.assert_allclose(components.T @ components, np.eye(WIDTH * 2 // 3), atol=5e-3)
    images = tensors.images.numpy()
    distances = np.sort(np.linalg.norm(images[:, None] - images, axis=-1), axis=1)
    np.testing.assert_allclose(tensors.spacing, distances[:, 1:6].mean(axis=1), rtol=2e-3)
    found = parts(tensors, held_out.mean, held_out.std, 5).numpy()
    usual, rare, rarest = np.quantile(found, (0.5, 0.9, 0.99), axis=0)
    np.testing.assert_allclose(tensors.part_centre, [*usual[:3], rarest[3]], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(tensors.part_scale, [*(rare - usual)[:3], (rarest - usual)[3] / 4], rtol=2e-3)
    rows = measure(unlike, known={"alike": features(300, seed=3)}, unknown={"shifted": features(300, seed=4, shift=4)})
    alike, shifted = rows
    assert alike.flagged / alike.images < 0.15
    assert alike.auroc is None
    assert shifted.flagged == shifted.images
    assert shifted.auroc == 1.0


def test_an_extended_reference_knows_further_images_and_still_no_others() -> None:
    made, tensors = fit_reference(data(), tower_sha256="0" * 64, datasets=["d"], images=300, false_alarms=0.05)
    base = UnlikeTraining(made, tensors)
    further = FurtherImages(
        train=features(120, seed=5, shift=3),
        held_out=features(60, seed=6, shift=3),
        datasets=["mine"],
        drawn=data().drawn,
    )
    made, tensors = extend_reference(base, further, tower_sha256="1" * 64)
    extended = UnlikeTraining(made, tensors)
    assert (made.tower_sha256, made.references.datasets, made.references.images) == ("1" * 64, ("d", "mine"), 420)
    assert made.threshold >= base.reference.threshold
    alike, others = features(200, seed=7, shift=3), features(200, seed=8, shift=-3)
    assert (score(base, alike) > base.reference.threshold).all()
    assert (score(extended, alike) > made.threshold).float().mean() < 0.1
    assert (score(extended, others) > made.threshold).all()
    rate = float((score(extended, further.held_out) > made.threshold).float().mean())
    assert (made.false_alarms.images, made.false_alarms.rate) == (60, rate)
    assert rate <= 0.03


def test_too_few_held_out_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"too few for a threshold at 1\.0% false alarms"):
        fit_reference(data(held_out=99), tower_sha256="0" * 64, datasets=["d"], images=300, false_alarms=0.01)


def test_small_datasets_are_kept_whole() -> None:
    datasets = ["large"] * 90 + ["small"] * 10
    chosen = choose_evenly(datasets, most=40, seed=0)
    assert sorted(datasets[place] for place in chosen) == ["large"] * 30 + ["small"] * 10
    assert choose_evenly(datasets, most=200, seed=0) == list(range(100))


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_images_are_the_same_for_the_same_seed(kind: str) -> None:
    first, again, other = draw(kind, 1), draw(kind, 1), draw(kind, 2)
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_pooling_in_bfloat16_leaves_the_model_in_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pooled_features, "fast_dtype", lambda _: torch.bfloat16)
    model = load_checkpoint(save_tiny_checkpoint(tmp_path / "checkpoint", seed=1))
    FeaturePooling(model, folder=tmp_path / "features")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_command_writes_a_reference_and_leaving_out_writes_none(tmp_path: Path) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    drawn = np.random.default_rng(0)
    for dataset, count in (("one", 60), ("other", 30)):
        (tmp_path / dataset / "images").mkdir(parents=True)
        lines = []
        for number in range(count):
            name = f"images/{number}.png"
            Image.fromarray(drawn.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / dataset / name)
            split = ("train", "train", "val")[number % 3] if number else "test"
            lines.append({"id": str(number), "task": "classification", "image": name, "split": split, "label": "a",
                          "label_set": ["a", "b"], "modality": "CT", "domain": "medical"})  # fmt: skip
        (tmp_path / dataset / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = ["--data", str(tmp_path), "--dataset", "one", "--dataset", "other", "--false-alarms", "0.1"]
    arguments = [str(checkpoint), *options, "--images", "50", "--drawn", "20"]
    further = [tmp_path / dataset / "images" for dataset in ("one", "other")]
    also = [argument for folder in further for argument in ("--also", str(folder))]
    left_out = CliRunner().invoke(app, [*arguments, "--leave-out", "other", *also])
    assert left_out.exit_code == 0, left_out.output
    assert all(
        f"| {folder}, also | {count} |" in left_out.output for folder, count in zip(further, (60, 30), strict=True)
    )
    assert "| other, left out | 1 |" in left_out.output
    assert not (checkpoint / "training_reference.safetensors").exists()
    made = CliRunner().invoke(app, arguments)
    assert made.exit_code == 0, made.output
    assert "wrote" in made.output
    # The val splits are what a threshold is made of.
    without = CliRunner().invoke(app, [*arguments, "--leave-out", "one", "--leave-out", "other"])
    assert without.exit_code == 1
    assert "too few" in without.output
    found = UnlikeTraining.from_directory(checkpoint, MedMoEConfig.from_directory(checkpoint))
    assert found is not None
    assert found.reference.references.datasets == ("one", "other")


def test_the_spacing_of_training_images_that_are_nearly_the_same_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 128, generator=generator) * 3 + 5
    images = torch.cat([images + 1e-3 * torch.randn(60, 128, generator=generator) for _ in range(8)]).half().float()
    apart = (images[:, None].double() - images).norm(dim=-1)
    apart.fill_diagonal_(torch.inf)
    expected = apart.topk(NEIGHBOURS, largest=False).values.mean(dim=-1)
    torch.testing.assert_close(spacing(images).double(), expected, rtol=1e-4, atol=1e-6)
