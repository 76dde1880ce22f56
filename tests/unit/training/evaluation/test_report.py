"""Reports: joined by id, sliced, set beside baselines, with intervals over images."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmoe.model.files.calibration import Calibration
from medmoe.model.files.calibration_binding import BoundTo, FittedOn
from medmoe.model.files.prediction_sets import PredictionSets
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.evaluation_data import EvaluationData
from medmoe.training.evaluation.evaluator import evaluate_predictor
from medmoe.training.evaluation.metrics.baseline import majority_answers
from medmoe.training.evaluation.metrics.interval import mean_interval, statistic_interval
from medmoe.training.evaluation.metrics.scores import Scorer, Scores
from medmoe.training.evaluation.predict.outcome import outcome
from medmoe.training.evaluation.prediction import Prediction, PromptRouting, of_labels
from medmoe.training.evaluation.report.coverage import coverage_table, coverages
from medmoe.training.evaluation.report.markdown import markdown
from medmoe.training.evaluation.report.report import build_report

SCORER = Scorer(resamples=200)


def said(answers: dict[str, str]) -> dict[str, Prediction]:
    return {id_: Prediction(id=id_, text=text) for id_, text in answers.items()}


def vqa(name: str, answer: str, **fields: Any) -> Sample:
    known: dict[str, Any] = {
        "id": name,
        "dataset": "d",
        "image": Path(f"/{name}.png"),
        "split": "test",
        "question": "What?",
        "answer": answer,
        "answer_type": "closed",
    }
    return Sample(**(known | fields))


def organ(name: str, label: str, **fields: Any) -> Sample:
    return vqa(name, label, **({"question": None, "answer_type": None, "labels": ("liver", "lung")} | fields))


def test_answers_are_joined_by_id_and_not_by_position() -> None:
    samples = [vqa("1", "yes"), vqa("2", "no")]
    report = build_report(samples, predictions=said({"2": "no", "1": "yes"}), scorer=SCORER)
    assert report.sections[0].scores["closed_accuracy_strict"].value == 1


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"1": "yes"}, "1 of 2 samples have no prediction, 2"),
        ({"1": "y", "2": "n", "3": "?"}, "belong to no sample, 3"),
    ],
)
def test_answers_that_do_not_fit_the_samples_are_refused(answers: dict[str, str], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        build_report([vqa("1", "yes"), vqa("2", "no")], predictions=said(answers), scorer=SCORER)


def test_images_of_one_patient_make_intervals_wide_as_those_of_its_one_image() -> None:
    """Ten patients of twelve images each, of which all are right or all are wrong."""
    samples = [organ(str(i), ("liver", "lung")[i % 2], group=str(i // 12)) for i in range(120)]
    alone = [replace(sample, group=None) for sample in samples]

    def likely(sample: Sample) -> Prediction:
        right = int(sample.group or 0) < 7
        shares = {label: 0.9 if (label == sample.answer) == right else 0.1 for label in sample.labels}
        return of_labels(sample.id, {label: math.log(p) for label, p in shares.items()}, routing=None)

    predictions = {sample.id: likely(sample) for sample in samples}
    grouped, single = SCORER(samples, predictions=predictions), SCORER(alone, predictions=predictions)
    assert grouped.keys() == {"accuracy", "auc", "brier", "nll"}
    for name, found in grouped.items():
        assert found.value == single[name].value
        assert found.high - found.low > 2 * (single[name].high - single[name].low)
    questions = [vqa(str(i), "yes", group=str(i // 12)) for i in range(120)]
    answers = said({sample.id: "yes" if i < 84 else "no" for i, sample in enumerate(questions)})
    (wide, narrow) = (
        SCORER(some, predictions=answers)["closed_accuracy_strict"]
        for some in (questions, [replace(sample, group=None) for sample in questions])
    )
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_patients_of_two_datasets_are_not_the_same() -> None:
    assert vqa("1", "yes", group="7").cluster == vqa("2", "no", group="7").cluster
    assert vqa("1", "yes", group="7").cluster != vqa("1", "yes", group="7", dataset="e").cluster


def test_how_often_prediction_sets_hold_the_label_is_told_over_patients() -> None:
    samples = [organ(str(i), "liver", group=str(i // 12)) for i in range(120)]
    said_liver = {"liver": 0.9, "lung": 0.1}
    shares = {s.id: said_liver if i < 84 else {"liver": 0.1, "lung": 0.9} for i, s in enumerate(samples)}
    outcomes = [
        outcome(s, of_labels(s.id, {label: math.log(p) for label, p in shares[s.id].items()}, routing=None))
        for s in samples
    ]
    calibration = Calibration(
        weights_sha256="0" * 64,
        prediction_sets=(
            PredictionSets(
                labels=("liver", "lung"),
                bound_to=BoundTo(prompt_sha256="1" * 64, dtypes=("float32",)),
                fitted_on=FittedOn(datasets=("d",), split="val", n=200),
                scores={"liver": (0.2,) * 100, "lung": (0.2,) * 100},
            ),
        ),
    )
    wide, narrow, single = (
        coverages(outcomes, calibration, clusters=clusters)[0]
        for clusters in (
            {s.id: s.cluster for s in samples},
            {s.id: s.image for s in samples},
            dict.fromkeys([s.id for s in samples], "a"),
        )
    )
    assert wide.held.value == narrow.held.value == 0.7
    assert wide.held.high - wide.held.low > 2 * (narrow.held.high - narrow.held.low)
    assert "| 70.0 (34.8 to 93.3) |" in coverage_table([wide])
    assert "| 70.0 (0.4 to 100.0) |" in coverage_table([single])


def test_an_id_used_twice_is_refused() -> None:
    with pytest.raises(DataError, match="more than once"):
        build_report([vqa("1", "yes"), vqa("1", "no")], predictions=said({"1": "yes"}), scorer=SCORER)


def test_legacy_and_strict_stand_side_by_side() -> None:
    samples = [vqa("1", "no"), vqa("2", "left lung", answer_type="open")]
    scores = (
        build_report(samples, predictions=said({"1": "normal", "2": "left left"}), scorer=SCORER).sections[0].scores
    )
    assert scores["closed_accuracy_legacy"].value == 1
    assert scores["closed_accuracy_strict"].value == 0
    assert scores["open_recall_legacy"].value == 2 / 3
    assert scores["open_accuracy_strict"].value == 0


def test_a_set_without_open_questions_has_no_open_scores() -> None:
    scores = build_report([vqa("1", "no")], predictions=said({"1": "no"}), scorer=SCORER).sections[0].scores
    assert set(scores) == {
        "closed_accuracy_legacy",
        "closed_accuracy_strict",
        "closed_recall_legacy",
        "closed_precision_legacy",
        "closed_f1_legacy",
    }


def closed(parts: dict[str, Scores]) -> dict[str, tuple[float, int]]:
    return {name: (s["closed_accuracy_strict"].value, s["closed_accuracy_strict"].n) for name, s in parts.items()}


def test_parts_by_modality_question_type_and_leak() -> None:
    samples = [
        vqa("1", "yes", modality="CT", question_type="organ"),
        vqa("2", "yes", modality="MRI", image_in_train=True, question_type="organ"),
        vqa("3", "yes", modality="MRI", near_twin_in_train=True),
        vqa("4", "yes"),
    ]
    answers = {"1": "yes", "2": "yes", "3": "no", "4": "no"}
    (section,) = build_report(samples, predictions=said(answers), shared={"4"}, scorer=SCORER).sections
    assert closed(section.subsets) == {"image not in train": (1 / 2, 2), "no near twin in train": (1, 1)}
    assert closed(section.modalities) == {"CT": (1, 1), "MRI": (1 / 2, 2), "unknown": (0, 1)}
    assert closed(section.question_types) == {"organ": (1, 2), "unknown": (0, 2)}
    assert section.in_train == 2


def test_a_part_that_would_repeat_the_whole_is_left_out() -> None:
    samples = [vqa("1", "yes", modality="CT"), vqa("2", "yes", modality="CT")]
    (section,) = build_report(samples, predictions=said({"1": "yes", "2": "yes"}), scorer=SCORER).sections
    assert not section.subsets
    assert not section.modalities
    assert not section.question_types


def test_majority_baseline_is_scored_with_the_same_metrics() -> None:
    train = [vqa(f"t{i}", answer, split="train") for i, answer in enumerate(["Yes", "yes", "no"])]
    samples = [vqa("1", "yes"), vqa("2", "no"), vqa("3", "no")]
    answers = {"1": "no", "2": "no", "3": "no"}
    (section,) = build_report(samples, predictions=said(answers), train=train, scorer=SCORER).sections
    assert section.baselines["majority"]["closed_accuracy_strict"].value == 1 / 3
    assert section.scores["closed_accuracy_strict"].value == 2 / 3


def test_baseline_by_question_type_is_narrower_and_falls_back() -> None:
    train = [
        vqa("t1", "yes", question_type="PRES"),
        vqa("t2", "yes", question_type="PRES"),
        vqa("t3", "left", question_type="SIDE"),
        vqa("t4", "lung", answer_type="open"),
    ]
    test = [vqa("1", "?", question_type="SIDE"), vqa("2", "?", question_type="new"), vqa("3", "?", answer_type="open")]
    assert majority_answers(train, test=test) == {"1": "yes", "2": "yes", "3": "lung"}
    assert majority_answers(train, test=test, by_question_type=True) == {"1": "left", "2": "yes", "3": "lung"}


def test_baseline_never_borrows_another_dataset() -> None:
    assert majority_answers([vqa("t", "yes", dataset="other")], test=[vqa("1", "yes")]) == {}


def test_labels_that_differ_in_what_answers_are_forgiven_are_two() -> None:
    labels = ("Hepatitis", "Hepatitis A")
    train = [organ("t", "Hepatitis A", labels=labels)]
    samples = [organ("1", "Hepatitis A", labels=labels), organ("2", "Hepatitis", labels=labels)]
    assert majority_answers(train, test=samples) == {"1": "Hepatitis A", "2": "Hepatitis A"}
    scores = SCORER(samples, predictions=said({"1": "Hepatitis", "2": "Hepatitis"}))
    assert scores["accuracy"].value == 1 / 2


def test_ties_do_not_depend_on_file_order() -> None:
    train = [vqa("t1", "yes"), vqa("t2", "no")]
    assert majority_answers(train, test=[vqa("1", "?")]) == majority_answers(train[::-1], test=[vqa("1", "?")])


def test_classification_counts_which_label_was_taken_for_which() -> None:
    samples = [organ("1", "liver"), organ("2", "liver"), organ("3", "lung"), organ("4", "liver")]
    answers = {"1": "liver", "2": "lung", "3": "lung", "4": "a cat"}
    (section,) = build_report(samples, predictions=said(answers), train=[organ("t", "liver")], scorer=SCORER).sections
    assert section.scores["accuracy"].value == 1 / 2
    assert section.baselines["majority"]["accuracy"].value == 3 / 4
    assert section.confusion is not None
    assert section.confusion.labels == ("liver", "lung")
    assert section.confusion.counts == ((1, 1), (0, 1))
    assert section.confusion.no_label == (1, 0)
    assert section.confusion.balanced_accuracy == pytest.approx((1 / 3 + 1) / 2)


def test_one_dataset_with_both_tasks_has_two_sections() -> None:
    samples = [organ("1", "liver"), vqa("2", "yes")]
    report = build_report(samples, predictions=said({"1": "liver", "2": "yes"}), scorer=SCORER)
    assert [section.kind for section in report.sections] == ["classification", "vqa"]


def test_json_and_markdown_say_the_same() -> None:
    samples = [organ("1", "liver"), vqa("2", "yes", dataset="e"), vqa("3", "no", dataset="e")]
    report = build_report(
        samples, predictions=said({"1": "lung", "2": "yes", "3": "yes"}), train=samples, scorer=SCORER
    )
    written = json.loads(report.to_json())
    assert written["sections"][1]["scores"]["closed_accuracy_strict"]["value"] == 0.5
    assert written["sections"][0]["confusion"]["counts"] == [[0, 1], [0, 0]]
    table = markdown(report)
    assert "| e | model | 2 | 50.0 (1.3 to 98.7) |" in table
    assert "| d: true, answered | liver | lung |" in table


def test_interval_draws_images_and_not_questions() -> None:
    values = [1.0, 0.0] * 10
    by_question = mean_interval(values, clusters=range(20), seed=0, resamples=500)
    # Three or four questions on each of six images, all of one image right or wrong: six things were really observed.
    by_image = mean_interval(sorted(values), clusters=[place * 6 // 20 for place in range(20)], seed=0, resamples=500)
    assert by_question.value == by_image.value == 0.5
    assert by_image.high - by_image.low > 1.5 * (by_question.high - by_question.low)
    assert 0.2 < by_question.low < 0.5 < by_question.high < 0.8


def test_same_seed_same_interval() -> None:
    values = [float(i % 3 == 0) for i in range(30)]
    first, again = (mean_interval(values, clusters=range(30), seed=7, resamples=100) for _ in range(2))
    assert first == again


def sure(name: str, text: str, confidence: float) -> Prediction:
    return Prediction(id=name, text=text, confidence=confidence)


def test_confidences_of_answers_are_scored_as_the_probability_of_being_right() -> None:
    samples = [vqa("1", "yes"), vqa("2", "no")]
    predictions = {"1": sure("1", "yes", 0.75), "2": sure("2", "yes", 0.5)}
    (section,) = build_report(samples, predictions=predictions, scorer=SCORER).sections
    assert section.scores["confidence_brier"].value == pytest.approx((0.25**2 + 0.5**2) / 2)
    assert section.scores["confidence_nll"].value == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert section.reliability is not None
    assert section.reliability.accuracy == 0.5
    assert section.risk_coverage is not None
    assert section.risk_coverage.coverage == 0.5


def test_one_missing_confidence_leaves_the_others_unscored() -> None:
    predictions = {"1": sure("1", "yes", 0.7)} | said({"2": "no"})
    (section,) = build_report([vqa("1", "yes"), vqa("2", "no")], predictions=predictions, scorer=SCORER).sections
    assert section.reliability is None
    assert "confidence_brier" not in section.scores


def test_label_probabilities_are_scored() -> None:
    truths = ["liver", "liver", "lung", "lung"]
    shares = [0.9, 0.4, 0.4, 0.2]
    samples = [organ(str(number), truth) for number, truth in enumerate(truths)]
    predictions = {
        s.id: of_labels(s.id, {"liver": math.log(p), "lung": math.log(1 - p)}, routing=None)
        for s, p in zip(samples, shares, strict=True)
    }
    (section,) = build_report(samples, predictions=predictions, scorer=SCORER).sections
    assert section.scores["accuracy"].value == 3 / 4
    assert section.scores["auc"].value == (1 + 1 + 0.5 + 1) / 4
    assert section.scores["brier"].value == pytest.approx(2 * (0.1**2 + 0.6**2 + 0.4**2 + 0.2**2) / 4)
    assert section.scores["nll"].value == pytest.approx(-sum(map(math.log, (0.9, 0.4, 0.6, 0.8))) / 4)


def test_a_perfect_auc_of_few_images_claims_no_certainty() -> None:
    samples = [organ("1", "liver"), organ("2", "liver"), organ("3", "lung"), organ("4", "lung")]
    predictions = {
        s.id: of_labels(s.id, {"liver": -1.0 if s.answer == "liver" else -3.0, "lung": -2.0}, routing=None)
        for s in samples
    }
    text = markdown(build_report(samples, predictions=predictions, scorer=SCORER))
    assert "| d | model | 4 | 100.0 (39.8 to 100.0) | 100.0 (no interval) |" in text


def test_a_single_true_class_has_no_auc_and_the_rest_stays() -> None:
    samples = [organ("1", "liver"), organ("2", "liver")]
    predictions = {s.id: of_labels(s.id, {"liver": -1.0, "lung": -2.0}, routing=None) for s in samples}
    (section,) = build_report(samples, predictions=predictions, scorer=SCORER).sections
    assert "auc" not in section.scores
    assert "nll" in section.scores


def test_what_the_question_alone_gives_away_is_a_baseline() -> None:
    samples = [vqa("1", "yes"), vqa("2", "no")]
    report = build_report(
        samples,
        predictions=said({"1": "yes", "2": "no"}),
        without_image=said({"1": "yes", "2": "yes"}),
        scorer=SCORER,
    )
    found = report.sections[0].baselines["question alone, image blanked"]
    assert found["closed_accuracy_strict"].value == 0.5
    assert "| d | question alone, image blanked baseline | 2 | 50.0" in markdown(report)


def test_routing_is_summed_by_modality_and_by_kind_of_token() -> None:
    samples = [vqa("1", "yes", modality="CT"), vqa("2", "no", modality="CT"), vqa("3", "no")]
    predictions = {
        s.id: Prediction(
            id=s.id,
            text="yes",
            routing=PromptRouting(
                expert_domains=("a", "b"), layers={0: (3, 1), 2: (0, 4)}, image={0: (3, 0), 2: (0, 3)}
            ),
        )
        for s in samples
    }
    table = build_report(samples, predictions=predictions, scorer=SCORER).routing
    assert table.expert_domains == ("a", "b")
    assert table.tokens == {"CT": {0: (6, 2), 2: (0, 8)}, "unknown": {0: (3, 1), 2: (0, 4)}}
    assert table.by_kind == {"image": {0: (9, 0), 2: (0, 9)}, "question": {0: (0, 3), 2: (0, 3)}}
    assert table.samples == 3


def test_without_the_image_equal_questions_are_asked_once_and_answered_alike() -> None:
    samples = [organ(str(number), ("liver", "lung")[number % 2]) for number in range(6)]
    calls: list[list[Sample]] = []

    def predict(asked: Sequence[Sample]) -> list[Prediction]:
        calls.append(list(asked))
        # The last bits of equal samples differ in a batch.
        shares = [{"liver": 1e-9 * place, "lung": 0.0} for place, _ in enumerate(asked)]
        return [of_labels(s.id, found, routing=None) for s, found in zip(asked, shares, strict=True)]

    data = EvaluationData(samples=tuple(samples), train=(), shared=frozenset(), files=())
    report = evaluate_predictor(data, predict, blank_images=True, scorer=SCORER)
    assert [len(asked) for asked in calls] == [6, 1]
    assert report.sections[0].baselines["question alone, image blanked"]["auc"].value == 0.5


def test_calibrated_confidences_stand_beside_the_models_own() -> None:
    samples = [organ("1", "liver"), organ("2", "liver"), vqa("3", "yes")]
    own = {s.id: of_labels(s.id, {"liver": 2.0, "lung": 0.0}, routing=None) for s in samples[:2]}
    own["3"] = sure("3", "no", 0.5)
    surer = {s.id: of_labels(s.id, {"liver": 9.0, "lung": 0.0}, routing=None) for s in samples[:2]}
    report = build_report(samples, predictions=own, calibrated=surer, scorer=SCORER)
    labels, questions = report.sections
    assert labels.calibrated is not None
    assert labels.reliability is not None
    assert labels.calibrated.reliability.ece_equal_mass < labels.reliability.ece_equal_mass
    assert set(labels.calibrated.scores) == {"brier", "nll"}
    assert questions.calibrated is None
    assert "| d (classification) | 2 | - | - | 100.0 | - | 11.9 -> 0.0 | - | - |" in markdown(report)


def test_the_first_table_has_a_line_for_each_dataset_and_its_fairer_parts() -> None:
    samples = [vqa("1", "yes", image_in_train=True), vqa("2", "no"), vqa("3", "left lung", answer_type="open")]
    train = [vqa("t", "yes", split="train")]
    found = {"1": "yes", "2": "yes", "3": "lung"}
    report = build_report(
        samples, predictions=said(found), without_image=said(dict.fromkeys(found, "no")), train=train, scorer=SCORER
    )
    lines = markdown(report).splitlines()[2:4]
    assert lines[0] == "| d (vqa) | 3 | 50.0 | 50.0 | - | - | - | 50.0 / 0.0 | 50.0 / 0.0 |"
    assert lines[1] == "| d (vqa), image not in train | 2 | 0.0 | 50.0 | - | - | - | - | - |"


def test_names_from_files_cannot_leave_their_cell() -> None:
    text = markdown(build_report([vqa("1", "yes", dataset="a|b\n# c")], predictions=said({"1": "yes"}), scorer=SCORER))
    assert "a\\|b # c (vqa) |" in text
    assert "\n# c (vqa) |" not in text


def test_the_json_holds_every_sample() -> None:
    samples = [vqa("1", "yes"), organ("2", "lung", dataset="e")]
    predictions = {
        "1": sure("1", "Yes.", 0.5),
        "2": of_labels("2", {"liver": 0.0, "lung": -math.log(3)}, routing=None),
    }
    report = build_report(samples, predictions=predictions, scorer=SCORER)
    first, second = json.loads(report.to_json(provenance={"command": "x"}))["outcomes"]
    assert first | {"id": "1", "prediction": "Yes.", "reference": "yes", "correct": True, "confidence": 0.5} == first
    assert second["correct"] is False
    assert second["probabilities"] == pytest.approx({"liver": 0.75, "lung": 0.25})


def test_answers_that_were_cut_are_told() -> None:
    predictions = {"1": Prediction(id="1", text="yes and", cut=True)}
    report = build_report([vqa("1", "yes")], predictions=predictions, scorer=SCORER)
    assert "1 answers were cut off" in markdown(report)


def test_a_mean_as_a_statistic_has_the_means_interval() -> None:
    values = np.array([float(i % 3 == 0) for i in range(30)])
    clusters = [i // 2 for i in range(30)]
    expected = mean_interval(values.tolist(), clusters=clusters, seed=3, resamples=300)
    found = statistic_interval(lambda drawn: float(values[drawn].mean()), clusters=clusters, seed=3, resamples=300)
    assert (found.value, found.n) == (expected.value, expected.n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
