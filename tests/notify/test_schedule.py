"""When rows are tried again."""

from __future__ import annotations

import pytest

from relaymail.notify.outcome import from_status
from relaymail.notify.schedule import backoff, delay


def test_the_wait_doubles_up_to_its_limit() -> None:
    assert [backoff(step, 1, 300, lambda: 0.5) for step in (0, 1, 2, 8, 9, 10**6)] == [1, 2, 4, 256, 300, 300]


def test_the_jitter_is_a_fifth_either_way() -> None:
    assert backoff(0, 100, 1000, lambda: 0.0) == pytest.approx(80)
    assert backoff(0, 100, 1000, lambda: 1.0) == pytest.approx(120)


@pytest.mark.parametrize(("code", "first", "most"), [(503, 1, 300), (401, 60, 3600), (404, 60, 3600)])
def test_what_somebody_has_to_mend_is_tried_slowly(code: int, first: float, most: float) -> None:
    assert first * 0.8 <= delay(0, from_status(code)) <= first * 1.2
    assert most * 0.8 <= delay(100, from_status(code)) <= most * 1.2


def test_a_wish_of_the_endpoint_prolongs_the_wait() -> None:
    assert delay(0, from_status(503, retry_after=90)) == 90
    assert delay(100, from_status(503, retry_after=1)) > 200
