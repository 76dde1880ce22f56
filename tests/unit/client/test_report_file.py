"""Where a report is stored is told also when its file cannot be written."""

from pathlib import Path

import pytest

from medmoe.client import InvalidInput, StoredReport
from medmoe.client.commands.request_options import keep_report


def test_a_stored_report_is_told_before_its_file_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = StoredReport(source="pacs", study="1", series="1.2", instance="1.2.3")
    with pytest.raises(InvalidInput, match="cannot be written"):
        keep_report(tmp_path, "AAAA", stored)
    assert capsys.readouterr().err == "report stored in pacs: series 1.2, instance 1.2.3\n"
