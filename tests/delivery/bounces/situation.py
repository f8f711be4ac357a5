"""A user with mail in the queue that fails, and the reports she gets of it."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from msgspec.structs import replace
from twisted.internet.defer import maybeDeferred

from relaymail.delivery.bounces import Bounces, Reporting
from relaymail.message.envelope import Envelope, EnvelopeRecipient, Origin
from relaymail.store.accounts import Accounts
from relaymail.store.archive import Archive
from relaymail.store.database import Database
from relaymail.store.messages import MessageStore
from relaymail.store.queue import Action, Job
from tests.conftest import reactor
from tests.store.queued import failed, one, queue_of
from tests.store.records import record

DAY = 86400.0
RAW = (
    b"From: anna@example.test\r\nTo: b@x.example\r\nSubject: Lunch\r\nMessage-ID: <lunch@example.test>\r\n"
    b"\r\nAt noon?\r\n"
)
GENERATED = "SELECT count(*) FROM relaymail.message WHERE listener = 'local'"


class Situation:
    """A user, mail of hers in the queue, and who reports."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.anna = uuid4()
        self.store = MessageStore(database, reactor=reactor, run=maybeDeferred)
        self.queue = queue_of(database)
        self.observed: list[tuple[str, str]] = []
        self.hints: list[str] = []

    def bounces(self, store: Any = None, life: float = 5 * DAY, *, sends: bool = True) -> Bounces:
        return Bounces(
            self.database,
            Accounts(self.database, clock=reactor),
            store or self.store,
            Reporting(
                server_name="mail.example.test",
                author="postmaster@example.test",
                hosted_domains=frozenset({"example.test"}),
                life=life,
                now=lambda: datetime.now(UTC),
                sends=sends,
            ),
            run=maybeDeferred,
            stored=lambda: self.hints.append("stored"),
            queued=lambda: self.hints.append("queued"),
            observe=lambda action, outcome: self.observed.append((action, outcome)),
        )

    async def add_anna(self) -> None:
        await self.database.execute(
            "test.user",
            'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt")'
            " VALUES (%s, %s, 'test', 'anna@example.test', now())",
            (self.anna, str(self.anna)),
        )

    async def put(
        self,
        *addresses: str,
        sender: str = "anna@example.test",
        raw: bytes = RAW,
        login: bool = True,
        mail: Mapping[str, str | None] | None = None,
        rcpt: Mapping[str, str | None] | None = None,
        here: bool = False,
        release_at: datetime | None = None,
    ) -> UUID:
        """Anna sends a message to ``addresses``, by default one elsewhere."""
        made = await record(raw, self.folder)
        recipients = tuple(
            EnvelopeRecipient(address, None, rcpt or {}, None if here else address.rpartition("@")[2])
            for address in addresses or ("b@x.example",)
        )
        made = replace(
            made,
            origin=Origin(
                "submission", "S", "192.0.2.1", "laptop", login_user_id=self.anna if login else None
            ),
            envelope=Envelope(sender, recipients, mail or {}),
            emails=(),
            release_at=release_at,
        )
        return await self.store.accept(made)

    async def claim(self) -> list[Job]:
        return sorted(await self.queue.claim(500, share=500), key=lambda job: job.destination)

    async def fail(self, owes: Action = "failed", **more: Any) -> None:
        """Every recipient fails for good."""
        for job in await self.claim():
            await self.queue.settle(failed(job, owes=owes, **more))

    async def reports(self) -> list[UUID]:
        rows = await self.database.query(
            "test.reports", "SELECT id FROM relaymail.message WHERE listener = 'local' ORDER BY id"
        )
        return [row[0] for row in rows]

    async def report(self, id: UUID | None = None) -> EmailMessage:
        """The only report, or that one, as a reader gets it."""
        if id is None:
            (id,) = await self.reports()
        raw = b"".join([part async for part in Archive(self.database).export_delivered(id)])
        message = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        assert message.get_content_type() == "multipart/report"
        return message

    async def owed(self) -> int:
        owed: int = await one(
            self.database, "SELECT count(*) FROM relaymail.queue WHERE owed_dsn IS NOT NULL"
        )
        return owed

    async def end_leases(self) -> None:
        await self.database.execute(
            "test.end", "UPDATE relaymail.queue SET dsn_due_at = now() WHERE dsn_due_at IS NOT NULL"
        )


def parts(message: EmailMessage) -> list[EmailMessage]:
    return [part for part in message.iter_parts() if isinstance(part, EmailMessage)]


def fields(message: EmailMessage) -> list[dict[str, str]]:
    blocks: Any = parts(message)[1].get_payload()
    return [dict(block.items()) for block in blocks]
