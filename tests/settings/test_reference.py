"""The page of the documentation is the one the code writes."""

from __future__ import annotations

from pathlib import Path

from relaymail.settings.kinds import Key
from relaymail.settings.reference import reference
from relaymail.settings.schema import tree

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text() == reference(), (
        "run: python -m relaymail.settings.reference > docs/reference/settings.md"
    )


def test_every_default_is_of_its_kind() -> None:
    for leaf in tree().leaves():
        assert isinstance(leaf.spec, Key)
        values = leaf.default if leaf.spec.many else (leaf.default,)
        for value in values or ():
            if value is not None and not leaf.spec.kind.secret:
                assert (
                    leaf.spec.kind.parse(str(value).lower() if value in (True, False) else str(value))
                    == value
                ), leaf.path
