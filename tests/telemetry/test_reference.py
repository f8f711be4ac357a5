"""The reference of all metrics, which is made of the instruments."""

from __future__ import annotations

from pathlib import Path

from relaymail.telemetry import Metrics
from relaymail.telemetry.reference import _LABELS, reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), (
        "run: python -m relaymail.telemetry.reference > docs/reference/metrics.md"
    )


def test_every_metric_and_every_label_is_explained() -> None:
    page = reference()
    labels: set[str] = set()
    for instrument in Metrics().instruments:
        assert page.count(f"| `{instrument.description.name}` |") == 1
        labels.update(instrument.description.labels)
    assert labels == set(_LABELS)
