"""The dashboard, as far as it can be judged without Grafana and without data."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.dashboard import WIDTH, dashboard, text
from tests.deploy.fitting import misfits
from tests.deploy.metrics import known, named
from tests.deploy.panels import ROWS

FILE = Path(__file__).parents[2] / "docs" / "deploy" / "grafana-dashboard.json"


def panels() -> list[dict[str, Any]]:
    """All but the headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def test_the_file_is_up_to_date() -> None:
    assert FILE.read_text() == text(), "python -m tests.deploy.dashboard > docs/deploy/grafana-dashboard.json"


def test_every_metric_that_is_shown_exists() -> None:
    used = {name for row in ROWS for panel in row.panels for expr, _ in panel.queries for name in named(expr)}
    assert len(used) > 40
    assert used <= known()


def test_every_instrument_is_shown() -> None:
    shown = " ".join(expr for row in ROWS for panel in row.panels for expr, _ in panel.queries)
    bases = {name.removesuffix("_bucket") for name in known() if not name.endswith(("_sum", "_count"))}
    assert {name for name in bases if name not in shown} == set()


def test_no_panel_lies_on_another_or_outside() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    for place in places:
        assert 0 <= place["x"] <= WIDTH - place["w"]
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_every_panel_says_what_it_shows() -> None:
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert len({query["refId"] for query in panel["targets"]}) == len(panel["targets"])


def objections(ours: dict[str, Any]) -> list[str]:
    """What Grafana's own model, as its SDK has it, does not know or has of other types."""
    sdk = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard", reason="needs grafana-foundation-sdk"
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    model = sdk.Dashboard.from_json(ours)
    # What the model does not know it passes over; what we leave out it adds
    return [*misfits(model), *_differences(ours, json.loads(JSONEncoder().encode(model)))]


def test_grafanas_own_model_knows_every_key_and_value() -> None:
    assert objections(json.loads(FILE.read_text())) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("gridpos", {}),
        ("targets.0.exprr", "1"),
        ("options.legen", {}),
        ("fieldConfig.defaults.custom.drawStile", "line"),
        ("fieldConfig.defaults.custom.drawStyle", "lines"),
        ("fieldConfig.defaults.min", "0"),
    ],
)
def test_a_slip_of_the_pen_would_be_found(path: str, value: object) -> None:
    wrong = json.loads(FILE.read_text())
    place = next(panel for panel in wrong["panels"] if panel["type"] == "timeseries")
    *way, last = path.split(".")
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    assert len(objections(wrong)) == 1


def _differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where ``theirs`` lacks something of ``ours``, or has it otherwise."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        missing = [f"{path}.{key} is not known" for key in ours if key not in theirs]
        common = [key for key in ours if key in theirs]
        return missing + [
            found for key in common for found in _differences(ours[key], theirs[key], f"{path}.{key}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            found
            for place, (one, other) in enumerate(zip(ours, theirs, strict=True))
            for found in _differences(one, other, f"{path}[{place}]")
        ]
    return [] if ours == theirs else [f"{path}: {ours!r} became {theirs!r}"]
