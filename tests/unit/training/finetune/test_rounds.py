"""Which weights a finetuning run leaves in the model."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from medmoe.model.medmoe import MedMoE
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.sample import Sample
from medmoe.training.finetune.measurement import Quality
from medmoe.training.finetune.rounds import Progress, Rounds

MODULE = "medmoe.training.finetune.rounds"


def trained(
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    *,
    losses: list[float],
    epochs: int,
    accuracies: list[float] | None = None,
) -> float:
    """Run rounds that each add 1 to a model of one weight, 0 before; return the weight that is left."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    right = accuracies or [1.0] * len(losses)
    seen = iter([Quality(loss=loss, accuracy=share) for loss, share in zip(losses, right, strict=True)])

    def add_one(model: nn.Module, *_: Any, **__: Any) -> dict[str, float]:
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return {}

    monkeypatch.setattr(f"{MODULE}.train_stage", add_one)
    rounds = Rounds(
        directory=directory,
        epochs=epochs,
        learning_rate=1e-3,
        weight_decay=0.0,
        trainable=("weight",),
        batch_size=1,
        seed=0,
        measure=lambda _: next(seen),
    )
    samples = cast(list[Sample], [object()] * 200)
    rounds(cast(MedMoE, model), samples, collator=cast(Collator, None))
    return model.weight.item()


def test_the_best_round_is_left_in_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = trained(monkeypatch, tmp_path, losses=[1.0, 0.5, 0.7, 0.8], epochs=3)
    assert weight == 1


def test_where_no_round_is_better_the_weights_stay_as_they_were(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = trained(monkeypatch, tmp_path, losses=[0.1, 0.5, 0.7, 0.8], epochs=3)
    assert weight == 0
    assert "stay as they were" in capsys.readouterr().err


def test_training_ends_after_three_rounds_without_a_lower_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = trained(monkeypatch, tmp_path, losses=[1.0, 0.5, 0.6, 0.7, 0.8, 0.1], epochs=9)
    assert weight == 1


def test_a_round_that_classifies_fewer_right_is_undone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = trained(monkeypatch, tmp_path, losses=[1.0, 0.2, 0.9, 0.8], accuracies=[0.9, 0.8, 0.9, 0.7], epochs=3)
    assert weight == 1


def test_the_learning_rate_falls_after_each_round_that_was_undone() -> None:
    progress = Progress(losses=[1.0, 1.2, 0.8, 0.9, 0.7], accuracies=[1.0] * 5)
    assert (progress.kept, progress.best, progress.undone) == ([0, 2, 4], 4, 2)
