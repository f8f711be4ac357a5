"""The reference of the protocol says what the code does."""

from __future__ import annotations

from relaymail.settings import model
from tests.packaging.smtp_reference import LIMITS, PAGE, TIMEOUTS, filled


def test_the_tables_of_the_protocol_are_up_to_date() -> None:
    text = PAGE.read_text()
    assert filled(text) == text, "run python -m tests.packaging.smtp_reference"


def test_every_limit_and_timeout_that_can_be_set_is_in_the_reference() -> None:
    told = {row[1].removeprefix("Smtp:Limits:").partition(":")[0] for row in LIMITS}
    assert _keys(model.Limits) - {"ExemptNetworks"} <= told
    assert _keys(model.Timeouts) == {row[1] for row in TIMEOUTS}


def _keys(section: type) -> set[str]:
    return {field.title().replace("_", "") for field in section.__annotations__}
