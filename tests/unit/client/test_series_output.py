"""What a series is printed with."""

import pytest

from medmoe.client import SeriesAnswer
from medmoe.client.answers.series import AnsweredSlice, SeriesDescription
from medmoe.client.commands.series.output import print_result


def answer(*, agreement: float = 1.0, ignored: int = 0) -> SeriesAnswer:
    series = SeriesDescription(
        slice_count=3, sampled=(1,), ordered_by="position", spacing=1.0, irregular=False, window=None,
        window_source="file", ignored_files=ignored,
    )  # fmt: skip
    best = AnsweredSlice(index=1, position=1.0, instance="1.2", file=1, frame=None, uniform=False, answer=None)
    return SeriesAnswer.model_construct(
        answer="yes", best_slice=1, rule="majority", agreement=agreement, abstained=False, series=series, slices=(best,)
    )


@pytest.mark.parametrize(
    ("agreement", "told"), [(1, "100 %"), (299 / 300, "99.7 %"), (1_999 / 2_000, "> 99.9 %"), (2 / 3, "66.7 %")]
)
def test_slices_agree_whole_only_where_all_do(agreement: float, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(answer(agreement=agreement), [])
    assert f"rule majority: {told} of the slices agree" in capsys.readouterr().err


@pytest.mark.parametrize(("ignored", "told"), [(0, ""), (2, "; files left out, because without a slice: 2")])
def test_files_that_the_service_left_out_are_told(ignored: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(answer(ignored=ignored), [])
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == f"1 of 3 slices, ordered by position; each slice in its own window{told}"
