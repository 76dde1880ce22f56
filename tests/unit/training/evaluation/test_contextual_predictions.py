"""Contextual calibration of predicted labels, against a model whose likelihoods are written down."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.contextual_predictions import contextual
from medmoe.training.evaluation.prediction import Prediction, of_labels

LABELS = ("CT", "magnetic resonance")


def predict(samples: Sequence[Sample]) -> Iterator[Prediction]:
    """Prefer CT by 5 nats whatever is shown, and by the mean of the image."""
    for sample in samples:
        if sample.kind == "vqa":
            yield Prediction(id=sample.id, text="yes", confidence=0.5)
            continue
        shown = float(np.asarray(Image.open(sample.image), dtype=float).mean()) / 255
        yield of_labels(sample.id, {label: -3.0 + (5 + 2 * shown) * (label == "CT") for label in LABELS}, routing=None)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    found = []
    for name, shade in (("bright", 250), ("dark", 5)):
        Image.new("RGB", (8, 8), (shade,) * 3).save(tmp_path / f"{name}.png")
        given = {"id": name, "dataset": "d", "image": tmp_path / f"{name}.png", "split": "test", "modality": "CT"}
        found.append(Sample(**given, labels=LABELS, answer="CT"))
    found.append(Sample(**given | {"id": "asked"}, question="Is this CT?", answer="yes", answer_type="closed"))
    return found


def test_a_preference_that_images_without_content_show_too_is_taken_away(samples: list[Sample], tmp_path: Path) -> None:
    (folder := tmp_path / "free").mkdir()
    found = {one.id: one for one in contextual(predict, folder=folder, size=16)(samples)}
    assert {id_: one.text for id_, one in found.items()} == {
        "bright": "CT",
        "dark": "magnetic resonance",
        "asked": "yes",
    }
    means = [float(np.asarray(Image.open(file), dtype=float).mean()) / 255 for file in sorted(folder.iterdir())]
    assert len(means) == 4
    for id_, shown in (("bright", 250 / 255), ("dark", 5 / 255)):
        margin = 2 * (shown - sum(means) / 4)
        assert found[id_].probabilities == pytest.approx(
            {"CT": 1 / (1 + math.exp(-margin)), "magnetic resonance": 1 / (1 + math.exp(margin))}
        )


def test_a_label_that_is_all_but_impossible_stays_a_number(samples: list[Sample], tmp_path: Path) -> None:
    def impossible(asked: Sequence[Sample]) -> Iterator[Prediction]:
        for sample in asked:
            yield of_labels(sample.id, {"CT": 0.0, "magnetic resonance": -2000.0}, routing=None)

    (folder := tmp_path / "free").mkdir()
    (found,) = contextual(impossible, folder=folder, size=16)(samples[:1])
    assert found.probabilities == pytest.approx({"CT": 0.5, "magnetic resonance": 0.5})
