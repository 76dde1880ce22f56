"""Dashboards, rules and the series that exist: a panel that asks for a name nobody exports is empty for ever."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import Service

DOCKER = Path(__file__).parents[3] / "docker"
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))
OF_THE_ENGINE = frozenset((Path(__file__).parents[2] / "support/service/engine_series.txt").read_text().split())
"""What a real engine added to /metrics, as Prometheus stored it: `curl 127.0.0.1:9090/api/v1/label/__name__/values`.
tests/engine/test_service.py asks the engine whether it still does."""
OF_PROMETHEUS = {
    "up",
    "ALERTS",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_tsdb_wal_writes_failed_total",
    "prometheus_tsdb_compactions_failed_total",
}
ONLY_WITH_A_REFERENCE = {"medmoe_routing_drift", "medmoe_routing_drift_tokens"}
ONLY_WITH_KEYS = {"medmoe_api_keys_stale", "medmoe_oidc_keys_stale"}
ONLY_WITH_BATCHES = {"medmoe_batches", "medmoe_batch_lines_total"}
_NOT_NAMES = {
    "sum",
    "count",
    "avg",
    "by",
    "on",
    "or",
    "and",
    "unless",
    "group_left",
    "without",
    "ignoring",
    "bool",
    "offset",
}


def names(expression: str) -> set[str]:
    """Metric names in PromQL: words that are no function, no label and no keyword."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left)\s*\([^)]*\)", r"\1", bare)
    return {word for word in re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()\b", bare) if word not in _NOT_NAMES}


def rules() -> list[dict[str, Any]]:
    files = (DOCKER / "prometheus" / "rules").glob("*.yml")
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[tuple[str, dict[str, Any]]]:
    return [(path.stem, panel) for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]]


@pytest.fixture
async def exported(service: Service, vqa_body: dict[str, Any]) -> set[str]:
    await service.client.post("/v1/vqa", json=vqa_body)
    text = (await service.client.get("/metrics")).text
    ours = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    return ours | OF_THE_ENGINE | OF_PROMETHEUS | ONLY_WITH_A_REFERENCE | ONLY_WITH_KEYS | ONLY_WITH_BATCHES


def test_names_are_found_in_queries() -> None:
    query = (
        'sum by (le) (rate(vllm:a_bucket{b="c"}[5m])) / on (d) group_left () (e:f:g > 0) or label_join(h, "i", "", "j")'
    )
    assert names(query) == {"vllm:a_bucket", "e:f:g", "h"}


async def test_every_query_asks_for_what_is_exported(exported: set[str]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {
        f"{board}: {panel['title']}": names(target["expr"]) for board, panel in panels() for target in panel["targets"]
    }
    asked |= {rule.get("record") or rule["alert"]: names(rule["expr"]) for rule in rules()}
    unknown = {where: found - exported - recorded for where, found in asked.items()}
    assert not {where: missing for where, missing in unknown.items() if missing}
    assert all(asked.values())


def test_rules_that_nobody_reads_are_not_kept() -> None:
    read = set().union(*(names(target["expr"]) for _, panel in panels() for target in panel["targets"]))
    read |= set().union(*(names(rule["expr"]) for rule in rules()))
    assert {rule["record"] for rule in rules() if "record" in rule} <= read


def test_the_files_are_what_dashboards_py_says(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("dashboards", DOCKER / "grafana" / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    dashboards = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dashboards)
    assert {path.name: path.read_text() for path in DASHBOARDS} == dashboards.files(), (
        "python docker/grafana/dashboards.py"
    )


def test_panels_have_a_data_source_that_is_provisioned_and_do_not_overlap() -> None:
    (source,) = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    taken: set[tuple[str, int, int]] = set()
    for board, panel in panels():
        assert panel["datasource"]["uid"] == source["uid"]
        place = panel["gridPos"]
        cells = {
            (board, x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({json.loads(path.read_text())["uid"] for path in DASHBOARDS}) == len(DASHBOARDS) == 3
