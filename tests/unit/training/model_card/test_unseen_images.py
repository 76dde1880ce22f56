"""What the card says of images that nobody trained on is read from a file, which may be anything."""

from pathlib import Path

import pytest

from medmoe.training.data.errors import DataError
from medmoe.training.model_card.unseen_images import unseen_images

REPORT = """{"provenance": {"answered_by": {"weights_sha256": "abc"}}, "sections": [{"dataset": "d", "kind": "vqa",
"n": 9, "in_train": 0, "scores": {"closed_accuracy_legacy": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 9}}}]}"""


def test_figures_of_another_checkpoint_become_a_table(tmp_path: Path) -> None:
    assert unseen_images(tmp_path) == ""
    (tmp_path / "image_disjoint").mkdir()
    (tmp_path / "image_disjoint" / "report.json").write_text(REPORT)
    assert "| d (vqa) | 9 | 0 | 50.0 (25.0 to 75.0) | - | - |" in unseen_images(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, REPORT.replace("0.75", '"x"'), REPORT.replace("9", "[]")]
)
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "image_disjoint").mkdir()
    (tmp_path / "image_disjoint" / "report.json").write_text(text)
    with pytest.raises(DataError, match=r"report\.json is not the report"):
        unseen_images(tmp_path)
