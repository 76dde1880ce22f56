"""The card's first lines sort label sets by what was measured, and say what nobody measures."""

from pathlib import Path

from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.metrics.scores import Scorer
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.evaluation.report.report import build_report
from medmoe.training.model_card.opening import opening
from medmoe.training.model_card.sections import front_matter, terms


def samples(dataset: str, count: int = 60) -> list[Sample]:
    return [
        Sample(
            id=f"{dataset}/{number}",
            dataset=dataset,
            image=Path(f"/{dataset}/{number}.png"),
            split="test",
            answer="ab"[number % 2],
            labels=("a", "b"),
        )
        for number in range(count)
    ]


def answered(samples: list[Sample], *, wrong: int) -> dict[str, Prediction]:
    """The last `wrong` of them with the other label."""
    other = {"a": "b", "b": "a"}
    right = len(samples) - wrong
    return {
        sample.id: Prediction(id=sample.id, text=sample.answer if number < right else other[sample.answer])
        for number, sample in enumerate(samples)
    }


def test_label_sets_are_sorted_by_how_often_the_answer_is_right() -> None:
    good, fair, poor = samples("good"), samples("fair"), samples("poor")
    question = Sample(
        id="q",
        dataset="asked",
        image=Path("/q.png"),
        split="test",
        question="Is it?",
        answer="yes",
        answer_type="closed",
    )
    said = answered(good, wrong=1) | answered(fair, wrong=12) | answered(poor, wrong=29)
    said["q"] = Prediction(id="q", text="yes")
    lines = opening(
        build_report([*good, *fair, *poor, question], predictions=said, scorer=Scorer(resamples=200))
    ).splitlines()
    assert "good 98 %" in lines[1]
    assert "nine times in ten" in lines[1]
    assert "fair 80 %" in lines[2]
    assert "poor 52 %" in lines[3]
    assert "not get right clearly more often" in lines[3]
    assert lines[4] == "- Questions of asked: closed 100 %."
    assert len(lines) == 9


def test_a_licence_is_stated_where_machines_read_it() -> None:
    assert front_matter("Apache-2.0") == "---\nlicense: Apache-2.0\n---\n"
    assert "Apache-2.0" in terms("Apache-2.0")
    assert front_matter(None) == terms(None) == ""
