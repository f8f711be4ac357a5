"""What a worker of the queue is given, and what it gives back: values without behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

Verdict = Literal["delivered", "deferred", "failed"]
"""What a try came to, for one recipient."""
Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
"""What a report says was done: the Action field of RFC 3464 2.3.3."""

RECIPIENTS: Final = 50
"""Recipients of one transaction, unless ``relaymail.destination`` says otherwise."""


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """A claimed row."""

    id: int
    n: int
    """That of the envelope: the order of the RCPT commands."""
    address: str
    parameters: Mapping[str, str | None]
    """RCPT parameters by upper-case name."""
    attempts: int
    """Tries so far, those that ended in doubt included."""
    queued_at: datetime
    """PostgreSQL's time, from which its life counts."""
    warned: bool
    """The sender has been told of the delay."""
    in_doubt: bool
    """An earlier final dot got no reply: the recipient may get the message twice."""


@dataclass(frozen=True, slots=True)
class Job:
    """A message on its way to one destination: one mail transaction."""

    token: UUID
    """That of the lease; every write names it."""
    message_id: UUID
    destination: str
    priority: int
    reverse_path: str
    """``''`` is the null sender."""
    parameters: Mapping[str, str | None]
    """MAIL parameters by upper-case name."""
    size: int
    """Octets as received."""
    received_at: datetime
    login_user_id: UUID | None
    recipients: tuple[QueuedRecipient, ...]
    probe: bool = False
    """The destination could not be reached the last time, and this one is to find out whether it can now: end
    the block with :meth:`Queue.unblock` where a host answers, renew it with :meth:`Queue.block` where not."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of one recipient."""

    id: int
    token: UUID
    verdict: Verdict
    status: str
    """Enhanced status code (RFC 3463)."""
    reply: str | None
    """The next host's exact reply, or why there was none; ``None`` leaves the last one in place."""
    phase: str
    """How far it got, such as ``connect``, ``rcpt``, ``final-dot``."""
    host: str | None = None
    """Name of the next host."""
    address: str | None = None
    """Where it was reached."""
    tls: str | None = None
    """Version, cipher and how the host was verified; ``None``: in clear."""
    delay: float = 0.0
    """Seconds until the next try; of a deferred one only."""
    owes: Action | None = None
    """The report that the sender is to get."""
    in_doubt: bool = False
    """The final dot was sent and got no reply."""
    seconds: float = 0.0
    """How long the try took."""


def jobs(rows: Sequence[tuple[Any, ...]], token: UUID) -> list[Job]:
    """Jobs of rows of ``relaymail.claimed``, in the order of their first rows, each with as many recipients
    as one transaction may have."""
    transactions: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for row in rows:
        transactions.setdefault((row[1], row[5], row[6], row[11]), []).append(row)
    made: list[Job] = []
    for same in transactions.values():
        largest = same[0][12] or RECIPIENTS
        made += [_job(same[at : at + largest], token) for at in range(0, len(same), largest)]
    return made


def _job(rows: Sequence[tuple[Any, ...]], token: UUID) -> Job:
    recipients = tuple(
        QueuedRecipient(id, n, address, parameters or {}, attempts, queued_at, warned, in_doubt)
        for id, _, n, address, parameters, _, _, attempts, queued_at, warned, in_doubt, *_ in rows
    )
    _, message_id, _, _, _, destination, priority, *_ = rows[0]
    probe, _, reverse_path, parameters, size, received_at, user = rows[0][11:]
    return Job(
        token=token,
        message_id=message_id,
        destination=destination,
        priority=priority,
        reverse_path=reverse_path,
        parameters=parameters or {},
        size=size,
        received_at=received_at,
        login_user_id=user,
        recipients=recipients,
        probe=probe,
    )
