"""`medmoe watch` without a service: rules that are refused by name, a state file without UIDs, long lists."""

from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from medmoe.client import Client, Instance
from medmoe.client.answers import InstanceInfo, SeriesInfo, StudyInfo
from medmoe.client.errors import BadRequest, InvalidInput, ServiceFailed
from medmoe.client.watch.backoff import WAITING, Backoff, is_of_source
from medmoe.client.watch.catalogue import MOST, Catalogue
from medmoe.client.watch.rules import Rule, read_rules
from medmoe.client.watch.state import State

RULE = '[chest]\nsource = "pacs"\nsince = 2026-05-01\nquestion = "What is it?"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no rule"),
        ("[chest", "is not TOML"),
        ('source = "pacs"', "source is outside a rule"),
        (RULE + 'modalty = "CT"', "[chest]: modalty is no key of a rule; did you mean modality?"),
        (RULE + 'modality = "ct"', "[chest]: modality should be capital letters such as CT"),
        (RULE + 'instances = "midle"', "did you mean middle?"),
        (RULE + 'store = "yes"', "[chest]: store should be a valid boolean"),
        (RULE + "slices = 4", "[chest]: slices goes with series = true"),
        (RULE + 'series = true\ninstances = "all"', "[chest]: instances goes with series = false"),
        (RULE + 'series = true\naggregate = "mean"', "[chest]: aggregate is most_confident or majority"),
        (RULE + 'series = true\nfinding = "mass"', "[chest]: finding is one of labels"),
        (RULE + "limit = 0", "[chest]: limit should be greater than or equal to 1"),
        (RULE + 'labels = ["a", "b"]', "[chest]: it needs a question or labels, and not both"),
        (RULE.replace("2026-05-01", '"2026-05-01"'), "[chest]: since should be a date"),
        (RULE.replace("2026-05-01", "20260501"), "[chest]: since should be a date"),
        ('[chest]\nquestion = "What is it?"\nsince = 2026-05-01', "[chest]: source is missing"),
    ],
)
def test_a_bad_rule_is_named_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read_rules(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_are_kept_over_restarts_and_an_unfinished_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with State(path) as state:
        key, other = state.key("image", "1.2.3"), state.key("image", "1.2.4")
        state.add(key, "stored")
        state.add(other, "stored")
        with pytest.raises(InvalidInput, match="another watch"):
            State(path)
    path.write_bytes(path.read_bytes()[:-5])
    assert path.stat().st_mode & 0o077 == 0
    with State(path) as state:
        assert state.key("image", "1.2.3") == key
        assert (key in state, other in state) == (True, False)
        state.add(other, "stored")
    with State(path, dry_run=True) as state:
        assert other in state
    assert "1.2.3" not in path.read_text()
    with State(tmp_path / "another") as state:
        assert state.key("image", "1.2.3") != key


@pytest.mark.parametrize("content", [b"notes", b"notes\n", b'{"format": "other 1", "secret": ""}\n', b"[]\n"])
def test_the_file_of_another_program_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="is not what a watch writes"):
        State(path)
    assert path.read_bytes() == content


class _Archive:
    """Answer queries like a service whose source holds `days` of studies, and one series in each."""

    def __init__(self, days: dict[date, int], numbers: list[int | None]) -> None:
        self.days = days
        self.numbers = numbers

    def studies(self, source: str, *, modality: str | None, date: str | None, limit: int) -> tuple[StudyInfo, ...]:
        first, _, last = (date or "").partition("-")
        found = [
            StudyInfo(
                study=f"1.{day:%Y%m%d}.{number}", date=f"{day:%Y%m%d}", time=None, description="CT Chest",
                modalities=("CT",), series_count=1, instance_count=len(self.numbers),
            )
            for day, count in self.days.items() if first <= f"{day:%Y%m%d}" <= (last or "9") for number in range(count)
        ]  # fmt: skip
        return tuple(found[:limit])

    def series(self, source: str, study: str, **limits: Any) -> tuple[SeriesInfo, ...]:
        count = len(self.numbers)
        return tuple(
            SeriesInfo(series=f"2.{modality}", modality=modality, number=1, description=None, instance_count=count)
            for modality in ("CT", "SR")
        )

    def instances(self, source: str, study: str, series: str, *, limit: int) -> tuple[InstanceInfo, ...]:
        found = [
            InstanceInfo(instance=f"3.{n}", sop_class=None, number=n, rows=8, columns=8, frames=None)
            for n in self.numbers
        ]
        return tuple(found[:limit])


def catalogue(archive: _Archive, notes: list[str] | None = None) -> Catalogue:
    return Catalogue(cast(Client, archive), note=(notes if notes is not None else []).append)


def rule(**entries: Any) -> Rule:
    given: dict[str, Any] = {"name": "chest", "source": "pacs", "since": date(2026, 1, 1), "question": "What?"}
    return Rule(**given | {"modality": "CT"} | entries)


def test_more_studies_than_one_list_holds_are_all_found() -> None:
    days = {date(2026, 1, 1) + timedelta(days=number): 400 for number in range(5)}
    days[date(2026, 2, 1)] = MOST + 5
    notes: list[str] = []
    found = Counter(study.study for study in catalogue(_Archive(days, [1]), notes).studies(rule()))
    assert len(found) == 5 * 400 + MOST
    assert set(found.values()) == {1}
    assert len(notes) == 1
    assert "2026-02-01" in notes[0]


@pytest.mark.parametrize(
    ("numbers", "entries", "expected"),
    [
        # By their numbers: as text, 9 would come last.
        ([11, 9, 10], {"instances": "first"}, ["3.9"]),
        ([11, 9, 10], {}, ["3.10"]),
        ([11, 9, None, 10], {"instances": "all", "limit": 3}, ["3.9", "3.10", "3.11"]),
        ([11, 9, 10], {"description": "chest"}, ["3.10"]),
        ([11, 9, 10], {"description": "knee"}, []),
        ([], {}, []),
    ],
)
def test_the_images_of_a_series(numbers: list[int | None], entries: dict[str, Any], expected: list[str]) -> None:
    found = catalogue(archive := _Archive({date(2026, 1, 1): 1}, numbers))
    (study,) = archive.studies("pacs", modality="CT", date="20260101-", limit=1)
    targets = found.targets(rule(**entries), study).targets
    assert [one.named.instance for one in targets if isinstance(one.named, Instance)] == expected
    (whole,) = found.targets(rule(series=True, description=entries.get("description")), study).targets or (None,)
    assert (whole and whole.identity) == (("series", study.study, "2.CT", len(numbers)) if expected else None)


def test_a_series_longer_than_one_list_is_left_out_and_counted() -> None:
    found = catalogue(archive := _Archive({date(2026, 1, 1): 1}, list(range(MOST + 1))))
    (study,) = archive.studies("pacs", modality="CT", date="20260101-", limit=1)
    for each in (rule(), rule(series=True)):
        taken = found.targets(each, study)
        assert (taken.targets, taken.long_series) == ((), 1)


def test_images_that_a_source_lists_and_does_not_have_are_no_outage() -> None:
    def fail() -> None:
        raise BadRequest("No.", status=404, type_="invalid_request_error", code="instance_not_found")

    backoff = Backoff(interval=60)
    assert [backoff.attempt(key, fail) for key in "abcd"] == ["instance_not_found"] * 4
    backoff.require_no_outage()
    assert [backoff.attempt("e", lambda: None), backoff.attempt("a", fail)] == [None, WAITING]


def test_one_failing_image_waits_and_three_in_a_row_are_an_outage() -> None:
    def fail() -> None:
        raise ServiceFailed("No.", status=502, type_="server_error", code="wrong_instance")

    backoff = Backoff(interval=60)
    assert [backoff.attempt("a", fail), backoff.attempt("a", fail)] == ["wrong_instance", WAITING]
    assert [backoff.attempt("b", fail), backoff.attempt("c", lambda: None)] == ["wrong_instance", None]
    backoff.require_no_outage()
    for key in "def":
        backoff.attempt(key, fail)
    assert backoff.attempt("g", lambda: None) == WAITING
    with pytest.raises(ServiceFailed):
        backoff.require_no_outage()
    backoff.restart()
    assert backoff.attempt("g", lambda: None) is None


def test_a_source_that_sends_other_instances_fails_itself_and_not_the_service() -> None:
    error = ServiceFailed("No.", status=502, type_="server_error", code="wrong_instance")
    assert is_of_source(error)
