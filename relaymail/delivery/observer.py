"""What metrics hear of delivery."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told of what happens; must be quick and must not raise."""

    def delivered(self, result: str, recipients: int = 1) -> None:
        """A try ended for so many recipients: ``delivered``, ``deferred`` or ``failed``."""

    def delivery_took(self, seconds: float) -> None:
        """A message was given to a host, or refused by it, in so many seconds."""

    def delivery_connected(self, tls: str | None) -> None:
        """A connection to a host stands; ``tls`` is the version, ``None``: in clear."""

    def unexpected_error(self) -> None:
        """Something unforeseen happened; the mail is tried again."""


class Nobody:
    """Hears nothing."""

    def delivered(self, result: str, recipients: int = 1) -> None:
        """Nothing is done."""

    def delivery_took(self, seconds: float) -> None:
        """Nothing is done."""

    def delivery_connected(self, tls: str | None) -> None:
        """Nothing is done."""

    def unexpected_error(self) -> None:
        """Nothing is done."""
