"""What a series is printed with."""

import pytest

from medmoe.client import SeriesAnswer
from medmoe.client.answers.series import AnsweredSlice, SeriesDescription
from medmoe.client.commands.series.output import print_result


@pytest.mark.parametrize(("ignored", "told"), [(0, ""), (2, "; files left out, because without a slice: 2")])
def test_files_that_the_service_left_out_are_told(ignored: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    series = SeriesDescription(
        slice_count=3, sampled=(1,), ordered_by="position", spacing=1.0, irregular=False, window=None,
        window_source="file", ignored_files=ignored,
    )  # fmt: skip
    best = AnsweredSlice(index=1, position=1.0, instance="1.2", file=1, frame=None, uniform=False, answer=None)
    found = SeriesAnswer.model_construct(
        answer="yes", best_slice=1, rule="majority", agreement=1.0, abstained=False, series=series, slices=(best,)
    )
    print_result(found, [])
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == f"1 of 3 slices, ordered by position; each slice in its own window{told}"
