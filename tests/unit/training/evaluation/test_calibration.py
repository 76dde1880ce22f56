"""Fitted maps recover what distorted the probabilities, and calibration.json is measured on other images."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmoe.model.files.calibration import Isotonic, Temperature
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.calibration.calibrator import Calibrator, only_helpful
from medmoe.training.evaluation.calibration.conformal import fit_prediction_sets
from medmoe.training.evaluation.calibration.fit import Method, fit_answers, fit_labels, isotonic
from medmoe.training.evaluation.evaluator import calibrated
from medmoe.training.evaluation.prediction import Prediction, of_labels
from medmoe.training.finetune.calibration import write_calibration

HASH = "0" * 64
BOUND: Any = {"split": "val", "weights_sha256": HASH, "prompt_sha256": "1" * 64}
LABELS = ("a", "b", "c")


def overconfident(n: int, *, temperature: float, seed: int = 0) -> list[tuple[list[float], int]]:
    """Labels drawn from softmax(z); the model says softmax(temperature z)."""
    rng = np.random.default_rng(seed)
    rows = []
    for z in rng.normal(size=(n, 3)):
        true = np.exp(z) / np.exp(z).sum()
        said = np.exp(temperature * z) / np.exp(temperature * z).sum()
        rows.append((said.tolist(), int(rng.choice(3, p=true))))
    return rows


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_the_temperature_that_distorted_the_labels_is_found(temperature: float) -> None:
    map_ = fit_labels(overconfident(4000, temperature=temperature), method="temperature")
    assert isinstance(map_, Temperature)
    assert map_.temperature == pytest.approx(temperature, rel=0.1)
    assert map_.bias == 0


def test_labels_that_are_all_right_are_not_made_certain() -> None:
    map_ = fit_labels([([0.7, 0.3], 0), ([0.2, 0.8], 1), ([0.9, 0.1], 0)] * 10, method="temperature")
    assert map_ == Temperature(temperature=1.0)


def test_scale_and_shift_of_an_answers_probability_are_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=6000) * 2
    said = 1 / (1 + np.exp(-logits))
    correct = rng.random(6000) < 1 / (1 + np.exp(-(logits / 2.5 + 1.0)))
    map_ = fit_answers(said.tolist(), correct.tolist(), method="temperature")
    assert isinstance(map_, Temperature)
    assert map_.temperature == pytest.approx(2.5, rel=0.15)
    assert map_.bias == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("right", [True, False])
def test_answers_that_are_all_right_or_all_wrong_give_a_finite_map(right: bool) -> None:
    map_ = fit_answers([0.2, 0.5, 0.9], [right] * 3, method="temperature")
    assert (map_.single(0.5) > 0.5) == right
    assert 0 < map_.single(0.5) < 1


def test_pooling_gives_the_least_squares_rising_map() -> None:
    found = isotonic([0.1, 0.2, 0.3, 0.4, 0.5], [False, True, False, True, True])
    assert found.x == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert found.y == (0, 0.5, 0.5, 1, 1)


def test_pooling_counts_repeats() -> None:
    assert isotonic([0.5, 0.5, 0.5, 0.7], [True, True, False, True]) == Isotonic(x=(0.5, 0.7), y=(2 / 3, 1.0))


def test_a_falling_relation_becomes_flat() -> None:
    found = isotonic([0.1, 0.9], [True, False])
    assert found.single(0.1) == found.single(0.5) == found.single(0.9) == 0.5


def shown(rows: list[tuple[list[float], int]]) -> tuple[list[Sample], dict[str, Prediction]]:
    samples = [
        Sample(id=f"c{i}", dataset="d", image=Path(f"/{i}.png"), split="val", answer=LABELS[truth], labels=LABELS)
        for i, (_, truth) in enumerate(rows)
    ]
    predictions = {
        sample.id: of_labels(sample.id, dict(zip(LABELS, map(math.log, said), strict=True)), routing=None)
        for sample, (said, _) in zip(samples, rows, strict=True)
    }
    return samples, predictions


def asked(n: int) -> tuple[list[Sample], dict[str, Prediction]]:
    """Three questions an image; the model is always sure and right half of the time."""
    samples = [
        Sample(id=f"q{i}", dataset="e", image=Path(f"/{i // 3}.jpg"), split="val", question="?", answer=answer)
        for i, answer in enumerate(["yes", "no"] * (n // 2))
    ]
    return samples, {
        s.id: Prediction(id=s.id, text="yes", confidence=0.9 + 0.001 * (i % 7)) for i, s in enumerate(samples)
    }


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibrating_lowers_the_error_on_images_that_were_not_fitted(method: Method) -> None:
    samples, predictions = shown(overconfident(1500, temperature=4))
    more, answers = asked(600)
    made = Calibrator(method=method)(samples + more, predictions={"float32": predictions | answers}, **BOUND)
    for fit, n in ((made.for_labels(LABELS), 1500), (made.answers, 600)):
        assert fit is not None
        assert fit.map.method == method
        assert fit.fitted_on.n + fit.held_out.n == n
        assert fit.held_out.ece_after < fit.held_out.ece_before / 3
        assert fit.held_out.nll_after < fit.held_out.nll_before


def test_a_map_that_harms_held_out_samples_is_left_out() -> None:
    samples, predictions = shown(overconfident(400, temperature=4))
    more, answers = asked(600)
    made = Calibrator()(samples + more, predictions={"float32": predictions | answers}, **BOUND)
    assert only_helpful(made) == made
    assert made.answers is not None
    for error in ("nll", "ece"):
        before = getattr(made.answers.held_out, f"{error}_before")
        worse = made.answers.held_out.model_copy(update={f"{error}_after": before + 0.01})
        harmful = made.model_copy(update={"answers": made.answers.model_copy(update={"held_out": worse})})
        assert only_helpful(harmful) == made.model_copy(update={"answers": None})
    (fit,) = made.label_sets
    worse = fit.held_out.model_copy(update={"nll_after": fit.held_out.nll_before + 0.01})
    harmful = made.model_copy(update={"classification": (fit.model_copy(update={"held_out": worse}),)})
    assert only_helpful(harmful) == made.model_copy(update={"classification": None})


def test_questions_about_one_image_stay_together() -> None:
    more, answers = asked(600)
    made = Calibrator(held_out=0.25)(more, predictions={"float32": answers}, **BOUND)
    assert made.answers is not None
    assert (made.answers.fitted_on.n, made.answers.held_out.n) == (450, 150)
    assert made.classification is None


def test_images_of_one_patient_stay_together_and_count_as_few() -> None:
    samples, predictions = shown(overconfident(400, temperature=4))
    grouped = [replace(sample, group=str(place % 4)) for place, sample in enumerate(samples)]
    calibrator = Calibrator(held_out=0.25)
    (fit,) = calibrator(grouped, predictions={"float32": predictions}, **BOUND).label_sets
    assert (fit.fitted_on.n, fit.held_out.n) == (300, 100)
    crowded = [replace(sample, group=str(int(place == 0))) for place, sample in enumerate(samples)]
    assert not calibrator.is_enough(crowded)


def test_a_patient_counts_once_for_each_label_in_prediction_sets() -> None:
    rows = overconfident(400, temperature=4)
    samples, predictions = shown(rows)
    grouped = [replace(sample, group=str(place // 100)) for place, sample in enumerate(samples)]
    (found,) = fit_prediction_sets(
        grouped, predictions={"float32": predictions}, split="val", prompt_sha256=BOUND["prompt_sha256"]
    )
    firsts: dict[tuple[int, int], float] = {}
    for place, (said, truth) in enumerate(rows):
        firsts.setdefault((truth, place // 100), 1 - said[truth])
    assert found.scores.keys() == set(LABELS)
    for truth, label in enumerate(LABELS):
        assert found.scores[label] == pytest.approx(sorted(firsts[truth, patient] for patient in range(4)))
    assert found.fitted_on.n == 12


def test_too_few_samples_are_refused() -> None:
    more, answers = asked(30)
    with pytest.raises(DataError, match="each part needs 20"):
        Calibrator()(more, predictions={"float32": answers}, **BOUND)


def test_a_finetuned_checkpoint_is_left_uncalibrated_where_few_images_have_many_questions(tmp_path: Path) -> None:
    more, answers = asked(60)
    crowded = [replace(sample, image=Path("/0.jpg" if i < 50 else "/1.jpg")) for i, sample in enumerate(more)]
    unused: Any = None
    found = write_calibration(tmp_path, crowded, list(answers.values()), model=unused, features=unused, seed=0)
    assert found is None


def test_calibrated_predictions_keep_their_text_and_lose_their_overconfidence() -> None:
    samples, predictions = shown(overconfident(400, temperature=5))
    made = Calibrator()(samples, predictions={"float32": predictions}, **BOUND)
    for found in predictions.values():
        mapped = calibrated(found, made)
        assert mapped.text == found.text
        assert mapped.probabilities is not None
        assert sum(mapped.probabilities.values()) == pytest.approx(1)
        assert mapped.confidence == mapped.probabilities[found.text] < (found.confidence or 0)
    question = Prediction(id="q", text="yes", confidence=0.9)
    assert calibrated(question, made) == question


def test_the_file_names_the_weights_and_the_data() -> None:
    more, answers = asked(120)
    made = Calibrator()(more, predictions={"float32": answers}, **BOUND)
    written = json.loads(made.to_json())
    assert written["weights_sha256"] == HASH
    assert written["answers"]["fitted_on"] | {"datasets": ["e"], "split": "val"} == written["answers"]["fitted_on"]


def test_each_set_of_labels_has_its_own_map_and_a_small_one_has_none() -> None:
    samples, predictions = shown(overconfident(400, temperature=4))
    others = [
        replace(sample, id=f"o{sample.id}", image=Path(f"/o{place}.png"), labels=("b", "c", "a", "d"))
        for place, sample in enumerate(samples[:30])
    ]
    answered = {one.id: replace(predictions[one.id.removeprefix("o")], id=one.id) for one in others}
    made = Calibrator()(samples + others, predictions={"float32": predictions | answered}, **BOUND)
    (fit,) = made.label_sets
    assert fit.labels == LABELS
    assert made.for_labels(["c", "a", "b"]) == fit
    assert made.for_labels(["a", "b"]) is None


def test_a_map_is_bound_to_the_number_formats_in_which_it_helps() -> None:
    samples, predictions = shown(overconfident(400, temperature=4))
    # The other way round: what makes the first less sure makes these less sure than they should be.
    _, unsure = shown(overconfident(400, temperature=0.3))
    made = Calibrator()(samples, predictions={"float32": predictions, "bfloat16": unsure}, **BOUND)
    (fit,) = made.label_sets
    assert fit.bound_to is not None
    assert fit.bound_to.dtypes == ("float32",)
    for dtype in ("float32", None):
        assert fit.applies(prompt_sha256="1" * 64, dtype=dtype)  # type: ignore[arg-type]
    assert not fit.applies(prompt_sha256="1" * 64, dtype="bfloat16")
    assert not fit.applies(prompt_sha256="2" * 64, dtype="float32")
    same = Calibrator()(samples, predictions={"float32": predictions, "bfloat16": predictions}, **BOUND)
    assert same.label_sets[0].bound_to is not None
    assert same.label_sets[0].bound_to.dtypes == ("float32", "bfloat16")
