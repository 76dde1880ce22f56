"""One result of several slices, and one window for them."""

from typing import Any

import pytest

from medmoe.server.inference.series.aggregate import aggregate_answers, aggregate_labels
from medmoe.server.inference.series.window import one_window
from medmoe.server.schemas.classify import (
    ClassifyProvenance,
    ClassifyResponse,
    LabelPresence,
    LabelProbability,
    MultiLabelResponse,
)
from medmoe.server.schemas.images import AppliedWindow, Rendering
from medmoe.server.schemas.inference import UnlikeTraining
from medmoe.server.schemas.series import AnsweredSlice, ClassifiedSlice
from medmoe.server.schemas.vqa import Confidence, VQAResponse


def place(index: int, **changes: Any) -> dict[str, Any]:
    whole = {"index": index, "position": None, "instance": "1", "file": index, "frame": None, "uniform": False}
    return whole | changes


def answered(*answers: tuple[str, float, bool] | None) -> list[AnsweredSlice]:
    """Answer, confidence and whether it abstains, of slices 10, 11, ...; None for a uniform slice."""
    return [
        AnsweredSlice.model_construct(
            **place(index, uniform=one is None),
            answer=None
            if one is None
            else VQAResponse.model_construct(
                answer=one[0], confidence=Confidence(value=one[1], calibrated=False), abstained=one[2]
            ),
        )
        for index, one in enumerate(answers, 10)
    ]


@pytest.mark.parametrize(
    ("answers", "rule", "expected"),
    [
        ((("yes", 0.6, False), ("no", 0.7, False), ("Yes.", 0.5, False)), "most_confident", ("no", 11, 1 / 3, False)),
        ((("yes", 0.6, False), ("no", 0.7, False), ("Yes.", 0.5, False)), "majority", ("yes", 10, 2 / 3, False)),
        ((("yes", 0.5, False), None, ("Yes", 0.6, False)), "majority", ("Yes", 12, 1.0, False)),
        ((("no", 0.9, True), ("yes", 0.6, False)), "most_confident", ("yes", 11, 1.0, False)),
        ((("no", 0.9, True), ("yes", 0.6, True)), "most_confident", ("no", 10, 0.5, True)),
        ((("no", 0.4, False), ("yes", 0.6, False)), "majority", ("yes", 11, 0.5, False)),
    ],
)
def test_the_answer_of_several_slices(answers: Any, rule: Any, expected: tuple[str, int, float, bool]) -> None:
    found = aggregate_answers(answered(*answers), rule)
    assert (found.answer, found.best_slice, found.agreement, found.abstained) == expected


def classified(*shares: tuple[float, ...], abstained: tuple[bool, ...] = ()) -> list[ClassifiedSlice]:
    return [
        ClassifiedSlice.model_construct(
            **place(index),
            classification=ClassifyResponse.model_construct(
                probabilities=tuple(LabelProbability(label="", probability=one, log_likelihood=0.0) for one in each),
                abstained=index in [10 + at for at, is_marked in enumerate(abstained) if is_marked],
            ),
        )
        for index, each in enumerate(shares, 10)
    ]


SHARES = ((0.2, 0.8), (0.9, 0.1), (0.3, 0.7))


@pytest.mark.parametrize(
    ("rule", "several", "abstained", "labels", "probabilities", "best"),
    [
        ("mean", False, (), ("b",), (1.4 / 3, 1.6 / 3), 10),
        ("max", False, (), ("a",), (0.9, 0.8), 11),
        ("max", True, (), ("a", "b"), (0.9, 0.8), 11),
        ("mean", True, (), ("b",), (1.4 / 3, 1.6 / 3), 10),
        ("max", False, (False, True, False), ("b",), (0.3, 0.8), 10),
        ("max", False, (True, True, True), ("a",), (0.9, 0.8), 11),
    ],
)
def test_the_labels_of_several_slices(
    rule: Any, several: bool, abstained: Any, labels: Any, probabilities: Any, best: int
) -> None:
    uniform = ClassifiedSlice.model_construct(**place(20, uniform=True), classification=None)
    slices = [*classified(*SHARES, abstained=abstained), uniform]
    found = aggregate_labels(("a", "b"), slices, rule, several=several, min_confidence=None)
    assert (found.labels, found.best_slice, found.abstained) == (labels, best, abstained == (True, True, True))
    assert [one.probability for one in found.probabilities] == pytest.approx(list(probabilities))


@pytest.mark.parametrize(
    ("shares", "label", "best"),
    [
        (((0.02, 0.98), (0.9, 0.1), (0.01, 0.99)), "a", 11),
        (((0.02, 0.98), (0.4, 0.6), (0.01, 0.99)), "b", 11),
        (((0.02, 0.98), (0.55, 0.45), (0.01, 0.99)), "a", 11),
        (((0.02, 0.28, 0.7), (0.4, 0.5, 0.1), (0.01, 0.49, 0.5)), "c", 11),
    ],
)
def test_a_finding_decides_however_sure_other_slices_are(shares: Any, label: str, best: int) -> None:
    labels = ("a", "b", "c")[: len(shares[0])]
    for turned in (1, -1):
        slices = classified(*(one[::turned] for one in shares))
        found = aggregate_labels(labels[::turned], slices, "max", several=False, finding="a", min_confidence=0.7)
        assert (found.labels, found.best_slice) == ((label,), best)
        assert found.abstained == (max(one[0] for one in shares) < 0.7)


def test_an_aggregate_under_the_threshold_abstains() -> None:
    for rule, threshold, several, abstained in (
        ("max", 0.95, False, True),
        ("max", 0.85, False, False),
        ("mean", 0.6, False, True),
        ("max", 0.85, True, True),
        ("max", 0.75, True, False),
    ):
        slices = classified(*SHARES)
        found = aggregate_labels(("a", "b"), slices, rule, several=several, min_confidence=threshold)  # type: ignore[arg-type]
        assert found.abstained is abstained


def asked_alone(*slices: tuple[tuple[float, bool], tuple[float, bool]], unlike: int | None = None) -> Any:
    """Probability of each of two labels, and whether the slice abstains from it, of slices 10, 11, ..."""
    provenance = ClassifyProvenance.model_construct(allow_unlike_training=False)
    return [
        ClassifiedSlice.model_construct(
            **place(index),
            classification=MultiLabelResponse.model_construct(
                probabilities=tuple(
                    LabelPresence.model_construct(probability=share, abstained=abstained) for share, abstained in each
                ),
                abstained=index == unlike or any(abstained for _, abstained in each),
                unlike_training=UnlikeTraining(score=2.0, threshold=1.0, flagged=index == unlike),
                provenance=provenance,
            ),
        )
        for index, each in enumerate(slices, 10)
    ]


@pytest.mark.parametrize(
    ("slices", "unlike", "expected"),
    [
        # The finding of slice 11 counts although the other label is unsure there.
        ((((0.1, False), (0.1, False)), ((0.99, False), (0.6, True))), None, (("a",), (0.99, 0.1), False)),
        ((((0.1, False), (0.6, True)), ((0.99, False), (0.55, True))), None, (("a", "b"), (0.99, 0.6), True)),
        ((((0.1, False), (0.1, False)), ((0.99, False), (0.9, False))), 11, ((), (0.1, 0.1), False)),
        ((((0.1, False), (0.1, False)),), 10, ((), (0.1, 0.1), True)),
    ],
    ids=["one label", "all slices", "an image unlike training", "all images unlike training"],
)
def test_of_labels_asked_alone_a_slice_abstains_from_each_alone(
    slices: Any, unlike: int | None, expected: tuple[tuple[str, ...], tuple[float, ...], bool]
) -> None:
    found = aggregate_labels(("a", "b"), asked_alone(*slices, unlike=unlike), "max", several=True, min_confidence=None)
    assert (found.labels, tuple(one.probability for one in found.probabilities), found.abstained) == expected


def rendering(*windows: AppliedWindow) -> Rendering:
    return Rendering(format="DICOM", colour="MONOCHROME2", frame=0, frames=1, steps=(), windows=windows)


def window(centre: float | None, width: float | None, function: Any = "LINEAR", source: Any = "file") -> AppliedWindow:
    return AppliedWindow(source=source, centre=centre, width=width, function=function)


@pytest.mark.parametrize(
    ("asked", "windows", "expected"),
    [
        (None, (window(40, 400),), ("39.5/399", "middle_slice")),
        ("file", (window(40, 400, "LINEAR_EXACT"),), ("40/400", "middle_slice")),
        ("full", (window(0.5, 1.25, "LINEAR_EXACT", "full"),), ("0.5/1.25", "middle_slice")),
        (None, (window(1, 1),), ("0.5/0.01", "middle_slice")),
        ("lung, full,bone", 3 * (window(7, 9),), ("6.5/8,6.5/8,6.5/8", "middle_slice")),
        ("lung", (window(-600, 1500),), ("lung", "request")),
        ("lung,bone,40/400", (), ("lung,bone,40/400", "request")),
        (None, (), (None, "each_slice")),
        (None, (window(None, None, None),), (None, "each_slice")),
        (None, (window(40, 400, "SIGMOID"),), (None, "each_slice")),
        ("file,full", (window(40, 400), window(40, 400, "SIGMOID")), ("file,full", "each_slice")),
        ("full", (window(0, 0.001, "LINEAR_EXACT"),), ("full", "each_slice")),
    ],
)
def test_one_window_for_all_slices(asked: str | None, windows: Any, expected: tuple[str | None, str]) -> None:
    assert one_window(asked, rendering(*windows)) == expected
