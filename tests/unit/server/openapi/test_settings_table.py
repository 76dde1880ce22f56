"""SETTINGS.md says what settings.py does."""

import re
from pathlib import Path

import pytest

from medmoe.server.openapi.settings_table import COMMAND, settings_table
from medmoe.server.settings import Settings

ROOT = Path(__file__).parents[4]
DOCUMENT = ROOT / "server" / "SETTINGS.md"


def rows() -> dict[str, list[str]]:
    """The cells of each line of the table, by variable."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `MEDMOE_")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {variable.strip("`"): rest for variable, *rest in cells}


def test_the_document_is_as_the_code_would_make_it() -> None:
    assert DOCUMENT.read_text() == settings_table(), f"server/SETTINGS.md is old: {COMMAND}"


def test_every_setting_has_a_line_with_nothing_left_out() -> None:
    assert list(rows()) == [f"MEDMOE_{name.upper()}" for name in Settings.model_fields]
    for variable, cells in rows().items():
        assert len(cells) == 3, variable
        assert all(cells), variable


def test_defaults_that_are_copied_into_the_environment_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in rows():
        monkeypatch.delenv(variable, raising=False)
    untouched = Settings()
    for variable, (_, default, _) in rows().items():
        if default.startswith("`"):
            monkeypatch.setenv(variable, default.strip("`"))
    assert Settings() == untouched


def test_bounds_choices_and_units_are_told() -> None:
    told = {variable: cells[0] for variable, cells in rows().items()}
    assert told["MEDMOE_PORT"] == "integer, 0 to 65535"
    assert told["MEDMOE_ENGINE"] == "`vllm`, `fake`"
    assert told["MEDMOE_DICOM_BURNED_IN"] == "`refuse`, `refuse_unless_clear`, `accept`"
    assert told["MEDMOE_IMAGE_SECONDS"] == "seconds, above 0, at most 86400"
    assert told["MEDMOE_MAX_BODY_BYTES"] == "bytes, from 1024"
    assert told["MEDMOE_API_KEYS"] == "path"
    assert told["MEDMOE_INSECURE"] == "`true` or `false`"


def test_other_settings_are_called_as_in_the_environment() -> None:
    known = {name for name in Settings.model_fields if "_" in name}
    for variable, (_, _, meaning) in rows().items():
        assert not known & set(re.findall(r"`(\w+)`", meaning)), variable
    assert "`MEDMOE_MAX_BODY_BYTES`" in rows()["MEDMOE_MAX_UPLOADS"][2]


def test_the_readme_leads_there() -> None:
    assert "(server/SETTINGS.md)" in (ROOT / "README.md").read_text()
