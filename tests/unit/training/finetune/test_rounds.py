"""Which weights a finetuning run leaves in the model."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from medmoe.model.medmoe import MedMoE
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import of_labels
from medmoe.training.finetune.measurement import Quality
from medmoe.training.finetune.rounds import Progress, Rounds, steps_of_round

MODULE = "medmoe.training.finetune.rounds"
EACH = steps_of_round(1, batch_size=16)
"""Steps of a round in a short training."""


def trained(
    monkeypatch: pytest.MonkeyPatch, directory: Path, *, losses: list[float], accuracies: list[float] | None = None
) -> float:
    """Run rounds that each add 1 to a model of one weight, 0 before; return the weight that is left."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    right = accuracies or [1.0] * len(losses)
    seen = iter([Quality(loss=loss, accuracy=share) for loss, share in zip(losses, right, strict=True)])

    def add_one_each_round(model: nn.Module, *_: Any, callbacks: list[TrainerCallback], **__: Any) -> None:
        state = TrainerState(max_steps=EACH * (len(losses) - 1))
        while state.global_step < state.max_steps:
            state.global_step += EACH
            with torch.no_grad():
                next(model.parameters()).add_(1)
            control = TrainerControl()
            for callback in callbacks:
                callback.on_step_end(cast(TrainingArguments, None), state, control)
            if control.should_training_stop:
                break

    monkeypatch.setattr(f"{MODULE}.train_stage", add_one_each_round)
    rounds = Rounds(
        directory=directory,
        epochs=3,
        learning_rate=1e-3,
        weight_decay=0.0,
        trainable=("weight",),
        batch_size=16,
        seed=0,
        measure=lambda _: next(seen),
    )
    rounds(cast(MedMoE, model), [], collator=cast(Collator, None))
    return model.weight.item()


def test_the_best_round_is_left_in_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = trained(monkeypatch, tmp_path, losses=[1.0, 0.5, 0.7, 0.8])
    assert weight == 1


def test_where_no_round_is_better_the_weights_stay_as_they_were(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = trained(monkeypatch, tmp_path, losses=[0.1, 0.5, 0.7, 0.8])
    assert weight == 0
    assert "stay as they were" in capsys.readouterr().err


def test_training_ends_after_four_rounds_without_a_lower_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = trained(monkeypatch, tmp_path, losses=[1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.1])
    assert weight == 1


def test_a_round_that_classifies_fewer_right_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = trained(monkeypatch, tmp_path, losses=[1.0, 0.2, 0.9, 0.8], accuracies=[0.9, 0.8, 0.9, 0.7])
    assert weight == 2


@pytest.mark.parametrize("lost", ["rounds.json", "best.safetensors"])
def test_a_run_of_which_files_are_gone_begins_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: str) -> None:
    trained(monkeypatch, tmp_path, losses=[1.0, 0.5, 0.7])
    (tmp_path / lost).unlink()
    (tmp_path / f"checkpoint-{EACH}").mkdir()
    assert trained(monkeypatch, tmp_path, losses=[1.0, 0.9, 0.6]) == 2
    assert not (tmp_path / f"checkpoint-{EACH}").exists()


def test_rounds_after_the_one_that_is_measured_again_are_forgotten() -> None:
    progress = Progress()
    for number, loss in enumerate([1.0, 0.8, 0.5]):
        progress.record(number, Quality(loss=loss, accuracy=1.0), epoch=number)
    progress.record(1, Quality(loss=0.9, accuracy=1.0), epoch=1)
    assert (progress.losses, progress.best) == ([1.0, 0.9], 1)


def test_surer_answers_of_the_same_order_are_no_worse() -> None:
    samples = [
        Sample(id=str(n), dataset="own", image=Path("/x.png"), split="val", answer="a", labels=("a", "b"))
        for n in range(3)
    ]

    def loss(power: float) -> float:
        found = [
            of_labels(sample.id, {"a": power * math.log(p), "b": power * math.log(1 - p)}, routing=None)
            for sample, p in zip(samples, (0.9, 0.8, 0.3), strict=True)
        ]
        return Quality.of(cast(MedMoE, None), samples, found, collator=cast(Collator, None)).loss

    assert loss(2.0) == pytest.approx(loss(1.0), rel=1e-4)
    assert loss(1.0) < math.log(2)
