"""What the outcome of a try means: when the next one is, and what the sender is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from relaymail.delivery.retry import Schedule
from relaymail.message.dsn_request import wanted
from relaymail.smtp.client_mail import Outcome
from relaymail.store.queue import Action, Job, QueuedRecipient, Settlement

EXPIRED: Final = "5.4.7"
"""Delivery time expired (RFC 3463 3.5)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a try was made."""

    host: str | None = None
    address: str | None = None
    tls: str | None = None
    """Version, cipher, and by what the host was verified; ``None``: in clear."""


NOWHERE: Final = Place()


class Verdicts:
    """Makes settlements of outcomes.

    :param age: seconds that have passed since a moment of PostgreSQL's.
    """

    def __init__(self, schedule: Schedule, age: Callable[[datetime], float]) -> None:
        self._schedule = schedule
        self._age = age

    def of(
        self,
        job: Job,
        recipient: QueuedRecipient,
        outcome: Outcome,
        place: Place = NOWHERE,
        seconds: float = 0.0,
    ) -> Settlement:
        """What is to be written down of one recipient."""
        verdict, status, delay = outcome.verdict, outcome.status, 0.0
        if verdict == "deferred":
            wait = self._schedule.wait(
                recipient.attempts + 1, self._age(recipient.queued_at), null_sender=not job.reverse_path
            )
            if wait is None:
                verdict, status = "failed", EXPIRED
            else:
                delay = wait
        return Settlement(
            id=recipient.id,
            token=job.token,
            verdict=verdict,
            status=status,
            reply=outcome.reply.exact if outcome.reply is not None else outcome.why,
            phase=outcome.phase,
            host=place.host,
            address=place.address,
            tls=place.tls,
            delay=delay,
            owes=self._owes(job, recipient, verdict, outcome),
            in_doubt=outcome.in_doubt,
            seconds=seconds,
        )

    def expired(self, job: Job, recipient: QueuedRecipient) -> Settlement:
        """Its time was over before it was tried again: the last reply stays."""
        owes: Action | None = "failed" if _reports(job, recipient, "failed") else None
        return Settlement(recipient.id, job.token, "failed", EXPIRED, None, "local", owes=owes)

    def _owes(self, job: Job, recipient: QueuedRecipient, verdict: str, outcome: Outcome) -> Action | None:
        action: Action
        if verdict == "delivered":
            # A host that knows DSN tells the sender itself (RFC 3461 5.2.2)
            action = "relayed"
            if outcome.dsn_taken_over:
                return None
        elif verdict == "failed":
            action = "failed"
        else:
            action = "delayed"
            late = self._age(recipient.queued_at) >= self._schedule.warning
            if recipient.warned or job.login_user_id is None or not late:
                return None
        return action if _reports(job, recipient, action) else None


def _reports(job: Job, recipient: QueuedRecipient, action: Action) -> bool:
    if job.reverse_path:
        return wanted(action, recipient.parameters)
    # Nobody is told of a report that gets nowhere, but it is written down and counted that nobody is
    return action == "failed"
