"""A text that does not show itself."""

from __future__ import annotations

import hmac
from typing import final

HIDDEN = "***"
"""What is shown in place of a secret, wherever settings are shown."""


@final
class Secret:
    """Wraps a secret text, so that no log line, error, ``repr`` or f-string can show it by accident.

    Two secrets are equal when their texts are (compared in constant time); the hash tells nothing either.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself: for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, format_spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not to be pickled")
