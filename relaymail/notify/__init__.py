"""The way of stored mail to the API: one POST per row of the outbox, until taken or 72 hours old."""

from relaymail.notify.breaker import EndpointState
from relaymail.notify.notifier import Notifier

__all__ = ["EndpointState", "Notifier"]
