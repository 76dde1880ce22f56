"""A progress bar on standard error around whatever predicts."""

import sys
from collections.abc import Iterator, Sequence

import typer

from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.prediction import Predict, Prediction


def with_progress(predict: Predict) -> Predict:
    """The same predictions; standard output stays free for the report."""

    def watched(samples: Sequence[Sample]) -> Iterator[Prediction]:
        with typer.progressbar(predict(samples), length=len(samples), label="answering", file=sys.stderr) as bar:
            yield from bar

    return watched
