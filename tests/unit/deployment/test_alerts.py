"""Alerts, the runbook that explains them, and the tests that fire them."""

import re
import shutil
import subprocess

import pytest

from tests.unit.deployment.conftest import DOCKER, RULES, alerts, read

TESTS = sorted((DOCKER / "prometheus" / "tests").glob("*.yml"))
RUNBOOK = (DOCKER / "RUNBOOK.md").read_text()


def test_every_alert_is_in_the_runbook_and_the_runbook_has_no_other() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(names) == len(set(names))
    assert re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE) == names


def test_every_section_says_something() -> None:
    for section in re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        assert len(text.partition("\n## ")[0].split()) > 15, name


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_is_and_where_to_begin(alert: dict) -> None:  # type: ignore[type-arg]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "runbook"}
    assert alert["annotations"]["runbook"].endswith(f"RUNBOOK.md, {alert['alert']}.")


def test_links_inside_the_runbook_lead_somewhere() -> None:
    sections = {name.lower() for name in re.findall(r"^#+ (\w+)$", RUNBOOK, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", RUNBOOK)) <= sections
    for path in re.findall(r"\]\(([^#)]+)\)", RUNBOOK):
        assert (DOCKER / path).is_file(), path


def test_settings_that_the_runbook_names_exist() -> None:
    from medmoe.server.settings import Settings

    known = {name.upper() for name in Settings.model_fields}
    # MEDMOE_METRICS_KEY_FILE is docker-compose.yml's.
    assert set(re.findall(r"MEDMOE_([A-Z_]+)", RUNBOOK)) - {"METRICS_KEY_FILE"} <= known


def test_each_alert_is_fired_by_a_test() -> None:
    """Not only mentioned: a test that expects silence fires nothing."""
    fired: set[str] = set()
    for test in (test for path in TESTS for test in read(path)["tests"]):
        fired |= {one["alertname"] for one in test.get("alert_rule_test", ()) if one.get("exp_alerts")}
        for one in test.get("promql_expr_test", ()):
            if one["exp_samples"]:
                fired |= set(re.findall(r"alertname='(\w+)'", one["expr"]))
    assert {alert["alert"] for alert in alerts()} <= fired


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: package prometheus)")
@pytest.mark.parametrize("command", ["check", "test"])
def test_promtool_agrees(command: str) -> None:
    files = sorted(RULES.glob("*.yml")) if command == "check" else TESTS
    subprocess.run(["promtool", command, "rules", *files], check=True)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: package prometheus)")
def test_promtool_can_read_the_configuration() -> None:
    configuration = DOCKER / "prometheus" / "prometheus.yml"
    subprocess.run(["promtool", "check", "config", "--syntax-only", configuration], check=True)
