"""Makes the dashboard: ``python -m tests.deploy.dashboard > docs/deploy/grafana-dashboard.json``.

What it shows is told in :mod:`tests.deploy.panels`; here is what Grafana calls it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.deploy.panels import GREEN, ORANGE, RED, ROWS, Panel

Json = dict[str, Any]

SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24
"""Columns of a dashboard."""


def dashboard() -> Json:
    """The dashboard, as Grafana imports it."""
    return {
        "uid": "relaymail",
        "title": "relaymail",
        "description": "Health, mail flow, queue and outbox of relaymail. Made for the metrics at /metrics.",
        "tags": ["relaymail", "smtp"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [*_variables()]},
        "annotations": {"list": []},
        "links": [],
        "panels": [*_panels()],
    }


def _variables() -> Iterator[Json]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "default", "value": "default"},
        "hide": 0,
        "refresh": 1,
        "regex": "",
        "multi": False,
        "includeAll": False,
        "options": [],
        "skipUrlSync": False,
    }
    yield _chosen_label("job", "Job", "relaymail_build_info")
    yield _chosen_label("instance", "Host", 'relaymail_build_info{job=~"$job"}')


def _chosen_label(name: str, title: str, metric: str) -> Json:
    return {
        "name": name,
        "label": title,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "options": [],
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
    }


def _panels() -> Iterator[Json]:
    number, y = 0, 0
    for row in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
            "panels": [],
        }
        y += 1
        x, lowest = 0, y
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y = 0, lowest
            number += 1
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            yield {"id": number, **_panel(panel), "gridPos": place}
            x += panel.width
            lowest = max(lowest, y + panel.height)
        y = lowest


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                **({"instant": True, "range": False} if panel.kind == "stat" else {"range": True}),
            }
            for place, (expression, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.steps],
        },
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "noValue": "–",
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.mapped:
        states = (("Healthy", GREEN), ("Degraded", ORANGE), ("Unhealthy", RED))
        options = {
            str(value): {"index": value, "text": text, "color": colour}
            for value, (text, colour) in enumerate(states)
        }
        defaults["mappings"] = [{"type": "value", "options": options}]
        defaults["thresholds"]["steps"] = [
            {"value": value or None, "color": colour} for value, (_, colour) in enumerate(states)
        ]
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if len(panel.steps) == 1 else "dashed"},
        }
    if panel.kind == "state-timeline":
        defaults["custom"] = {"fillOpacity": 80, "lineWidth": 0}
    return defaults


def _options(panel: Panel) -> Json:
    legend = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
    if panel.kind == "stat":
        return {
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": panel.text,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    if panel.kind == "state-timeline":
        return {
            "showValue": "never",
            "rowHeight": 0.8,
            "mergeValues": True,
            "alignValue": "center",
            "legend": {**legend, "showLegend": panel.mapped},
            "tooltip": {"mode": "single", "sort": "none"},
        }
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
