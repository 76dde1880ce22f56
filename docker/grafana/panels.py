"""Build Grafana's JSON of the kinds of panel that the dashboards use."""

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]
DATA_SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24
"""Columns of Grafana's grid."""
_HEIGHT = 8


def lines(title: str, *queries: tuple[str, str], unit: str = "short", note: str = "", top: float | None = None) -> Json:
    """Return a graph over time; each query is an expression and its legend. `top` fixes the axis from 0 to it."""
    defaults: Json = {"unit": unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}}
    if top is not None:
        defaults["max"] = top
    return _panel("timeseries", title, queries, note=note) | {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def number(
    title: str, query: str, *, unit: str = "short", note: str = "", bad: Sequence[tuple[float, str]] = ()
) -> Json:
    """Return a panel of one current number; `bad` are ascending thresholds, from which it has another colour."""
    steps: list[Json] = [{"color": "green", "value": None}, *({"color": color, "value": value} for value, color in bad)]
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}, "noValue": "none yet"}
    return _panel("stat", title, [(query, "")], note=note, instant=True) | {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"colorMode": "background", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
    }


def matrix(title: str, query: str, *, row: str, column: str, note: str = "") -> Json:
    """Return a heat map of shares now: a cell for each pair of the labels `row` and `column`."""
    defaults = _shares() | {"custom": {"cellOptions": {"type": "color-background"}, "align": "center"}}
    panel = _panel("table", title, [(query, "")], note=note, instant=True) | {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"showHeader": True, "cellHeight": "sm"},
        "transformations": [
            {
                "id": "groupingToMatrix",
                "options": {"rowField": row, "columnField": column, "valueField": "Value", "emptyValue": "null"},
            }
        ],
    }
    panel["targets"][0]["format"] = "table"
    return panel


def history(title: str, query: str, legend: str, *, note: str = "") -> Json:
    """Return a heat map of shares over time: a row for each series."""
    return _panel("status-history", title, [(query, legend)], note=note) | {
        "fieldConfig": {"defaults": _shares() | {"custom": {"fillOpacity": 90}}, "overrides": []},
        "options": {"showValue": "never", "legend": {"showLegend": False}, "rowHeight": 0.9},
        "maxDataPoints": 120,
    }


def dashboard(
    uid: str, title: str, rows: Sequence[Sequence[Json]], *, note: str, choices: Mapping[str, str] | None = None
) -> Json:
    """Return panels in rows, each row's panels of one width and as high as its highest.

    Each of `choices` is a variable that is chosen at the top, and the query for its values.
    """
    panels: list[Json] = []
    y = 0
    for row in rows:
        height = 4 if all(panel["type"] == "stat" for panel in row) else _HEIGHT
        width = WIDTH // len(row)
        for place, panel in enumerate(row):
            panel["id"] = len(panels) + 1
            panel["gridPos"] = {"x": place * width, "y": y, "w": width, "h": height}
            panels.append(panel)
        y += height
    return {
        "uid": uid,
        "title": title,
        "description": note,
        "tags": ["med-moe"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_choice(name, query) for name, query in (choices or {}).items()]},
        "links": [{"type": "dashboards", "title": "Med-MoE", "tags": ["med-moe"], "asDropdown": False}],
        "panels": panels,
    }


def _choice(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": name},
        # Whenever the time range changes: models come and go.
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
    }


def _shares() -> Json:
    return {"unit": "percentunit", "decimals": 0, "min": 0, "max": 1, "color": {"mode": "continuous-BlYlRd"}}


def _panel(kind: str, title: str, queries: Sequence[tuple[str, str]], *, note: str, instant: bool = False) -> Json:
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": DATA_SOURCE,
            "expr": query,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
        }
        for place, (query, legend) in enumerate(queries)
    ]
    return {"type": kind, "title": title, "description": note, "datasource": DATA_SOURCE, "targets": targets}
