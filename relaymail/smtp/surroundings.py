"""What all sessions of a listener share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from relaymail.smtp.content import Content
from relaymail.smtp.limits import ClientLimits
from relaymail.smtp.policy import Policy
from relaymail.smtp.probe import ProbeRegistry
from relaymail.smtp.session import ISession, Peer
from relaymail.smtp.tls import ServerTLS


class Observer(Protocol):
    """What metrics hear of."""

    def connection_opened(self, listener: str) -> None:
        """A connection began."""

    def connection_closed(self, listener: str) -> None:
        """A connection ended."""

    def session_ended(self, listener: str, tls: str | None, end: str, seconds: float) -> None:
        """A session that was no probe of ours ended; ``end`` is one of few constant phrases."""

    def commanded(self, verb: str) -> None:
        """A command came; ``verb`` is a known one, or ``other``."""

    def replied(self, code: int) -> None:
        """A reply was sent."""

    def refused(self, reason: str) -> None:
        """Something was refused; ``reason`` is one of few constant phrases."""

    def unexpected_error(self) -> None:
        """Something unforeseen happened and was answered 451."""


class Crowd(Protocol):
    """All sessions of the process, as one of them sees the others."""

    crowded: bool
    """Whether so many connections are open that idle ones have to go sooner."""

    def ended(self, session: Any) -> None:
        """A session is over."""


@dataclass(slots=True)
class Surroundings:
    """What all sessions of a listener share."""

    policy: Policy
    reactor: Any
    new_session: Callable[[Peer], ISession]
    new_session_id: Callable[[], str]
    new_content: Callable[[], Content]
    tls: ServerTLS | None
    observer: Observer
    probes: ProbeRegistry
    clients: ClientLimits | None = None
    """Counts the clients of this kind of listener."""
    scram: Callable[[], bool] = lambda: True
    """Whether SCRAM may be offered at the moment, where the policy has it."""
    after_stored: Callable[[], None] = lambda: None
    """Called when the 250 of a stored message was written."""
