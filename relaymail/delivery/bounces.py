"""Makes the reports that are owed to senders (RFC 3461 5, RFC 3464), and has them stored.

A sender with a mailbox here finds the report in it, as any mail; one elsewhere is sent it, with the null
reverse-path. A report is stored under an id that was written down before: with a crash between storing it and
clearing the debt there is one report all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from relaymail.delivery.report_record import Mailbox, record_of
from relaymail.message import dsn, dsn_request
from relaymail.message.dsn import Excerpt, Original, Report, ReportedRecipient
from relaymail.message.record import Record
from relaymail.smtp.address import AddressError, parse_mailbox
from relaymail.store import debts
from relaymail.store.accounts import Accounts
from relaymail.store.archive import Archive, ArchiveError
from relaymail.store.database import Database, DatabaseError
from relaymail.store.debts import Debt, OwedRecipient
from relaymail.store.messages import MessageStore

log = Logger()

BATCH: Final = 20
"""Reports made at a time; each holds a part of its original for a moment."""
LEASE: Final = 120.0
"""Seconds after which another host makes a report that was claimed and not stored."""


@dataclass(frozen=True, slots=True)
class Reporting:
    """What reports say of the host, and how it goes about mail."""

    server_name: str
    author: str
    """The address reports are from: ``postmaster@…``."""
    hosted_domains: frozenset[str]
    """Lower-case A-labels: mail for them is never sent on."""
    life: float
    """Seconds for which a recipient is tried; infinite where it is not an age that ends it."""
    now: Callable[[], datetime]
    """The time, aware."""
    sends: bool = True
    """Whether mail is sent on. Where it is not, a report for elsewhere would wait in the queue for ever."""


class Bounces:
    """Makes what is owed. Any number of hosts may do so at once.

    :param run: runs a function in a thread and returns a Deferred.
    :param stored: called behind each report that was stored for a local user; ``queued`` for others.
    :param observe: called with the action and the outcome of each: ``stored``, ``queued``, ``unwanted``, or
        ``dropped``.
    """

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        store: MessageStore,
        reporting: Reporting,
        *,
        run: Callable[..., Any],
        stored: Callable[[], None] = lambda: None,
        queued: Callable[[], None] = lambda: None,
        observe: Callable[[str, str], None] = lambda action, outcome: None,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._store = store
        self._archive = Archive(database)
        self._reporting = reporting
        self._run = run
        self._stored = stored
        self._queued = queued
        self._observe = observe
        self._running = False
        self._stopping = False

    def stop(self) -> None:
        """Begin no more reports; those under way end by themselves, or are made by another host."""
        self._stopping = True

    async def settle_debts(self) -> int:
        """Make the reports that are owed by now, and return how many debts are settled.

        Cheap where nothing is owed. A call while another is under way returns 0 at once: the other one, or
        the next, finds what this one would. What fails is logged and claimed again later.

        :raises DatabaseError: what is owed could not be looked up.
        """
        if self._running:
            return 0
        self._running = True
        try:
            settled = 0
            while not self._stopping and (claimed := await debts.claim(self._database, BATCH, LEASE)):
                tasks = [Deferred.fromCoroutine(self._settle(debt)) for debt in claimed]
                settled += sum(await gatherResults(tasks))
            return settled
        finally:
            self._running = False

    async def _settle(self, debt: Debt) -> bool:
        """Settle one debt. Never raises: one must not keep the others from their reports."""
        try:
            await self._report(debt)
        except DatabaseError as error:
            log.error(
                "The report {report} about message {id} is not stored yet: {why}",
                report=debt.report_id,
                id=debt.message_id,
                why=str(error),
            )
            return False
        except Exception:
            log.failure(
                "The report {report} about message {id} could not be made",
                report=debt.report_id,
                id=debt.message_id,
            )
            return False
        return True

    async def _report(self, debt: Debt) -> None:
        if not debt.reverse_path and debt.action == "failed":
            # Nobody is told of a report, or a read receipt, that gets nowhere (RFC 3461 6.1)
            await self._drop(debt, "null sender")
            return
        recipients = [r for r in debt.recipients if dsn_request.wanted(debt.action, r.parameters)]
        warned_stranger = debt.action == "delayed" and debt.login_user_id is None
        if not recipients or not debt.reverse_path or warned_stranger:
            await debts.dropped(self._database, [debt], "unwanted")
            self._observe(debt.action, "unwanted")
            return
        mailbox = await self._mailbox(debt)
        if mailbox is None:
            await self._drop(debt, "no mailbox of the sender")
            return
        record = await self._record(replace(debt, recipients=tuple(recipients)), mailbox)
        await self._store.accept(record)
        (self._stored if mailbox.destination is None else self._queued)()
        await debts.paid(self._database, [debt])
        outcome = "stored" if mailbox.destination is None else "queued"
        self._observe(debt.action, outcome)
        log.info(
            "Report {report} about message {id} {outcome}: {action}, {recipients} recipients, to <{sender}>",
            report=debt.report_id,
            action=debt.action,
            id=debt.message_id,
            recipients=len(recipients),
            outcome=outcome,
            sender=debt.reverse_path,
        )

    async def _drop(self, debt: Debt, why: str) -> None:
        await debts.dropped(self._database, [debt], why)
        self._observe(debt.action, "dropped")
        log.warn(
            "Message {id} {action} for {recipients} recipients, and nobody is told: {why}",
            id=debt.message_id,
            action=debt.action,
            recipients=len(debt.recipients),
            why=why,
        )

    async def _mailbox(self, debt: Debt) -> Mailbox | None:
        """Where reports about mail from this reverse-path go; ``None``: nowhere."""
        try:
            address = parse_mailbox(debt.reverse_path)
        except AddressError:
            return None
        for key in address.keys:
            owner = await self._accounts.owner(key)
            if owner is not None:
                return Mailbox(address, owner.user_id, None)
        if self._reporting.sends and address.host not in self._reporting.hosted_domains:
            return Mailbox(address, None, address.host)
        # An address that leads nowhere, but someone was allowed to use: who used it is to know
        return None if debt.login_user_id is None else Mailbox(address, debt.login_user_id, None)

    async def _record(self, debt: Debt, mailbox: Mailbox) -> Record:
        original = await self._original(debt)
        facts = self._facts(debt, original)
        record: Record = await self._run(record_of, debt.report_id, facts, mailbox)
        return record

    async def _original(self, debt: Debt) -> Original:
        """What is returned of the original; nothing where it is gone."""
        # RET only speaks of failures (RFC 3461 4.3): of all else the header is enough
        whole = debt.action == "failed" and dsn_request.wants_all(debt.parameters)
        excerpt = Excerpt(dsn.MOST_RETURNED, whole=whole and debt.size <= dsn.MOST_RETURNED)
        form = self._archive.export_delivered(debt.message_id)
        try:
            async for part in form:
                if not excerpt.feed(part):
                    break
        except ArchiveError as error:
            log.warn("A report returns nothing of message {id}: {why}", id=debt.message_id, why=str(error))
            return Original(b"", None)
        return excerpt.finish()

    def _facts(self, debt: Debt, original: Original) -> Report:
        reporting = self._reporting
        return Report(
            message_id=f"{debt.report_id}@{reporting.server_name}",
            at=reporting.now(),
            reporting_mta=reporting.server_name,
            author=reporting.author,
            to=debt.reverse_path,
            recipients=[self._recipient(debt, recipient) for recipient in debt.recipients],
            arrived_at=debt.received_at,
            original=original,
            original_id=debt.header_message_id,
            original_subject=debt.subject,
            envelope_id=dsn_request.envelope_id(debt.parameters),
        )

    def _recipient(self, debt: Debt, recipient: OwedRecipient) -> ReportedRecipient:
        until = None
        if debt.action == "delayed" and self._reporting.life < float("inf"):
            until = recipient.queued_at + timedelta(seconds=self._reporting.life)
        return ReportedRecipient(
            address=recipient.address,
            action=debt.action,
            status=recipient.status,
            original=dsn_request.original_recipient(recipient.parameters),
            host=recipient.host,
            reply=recipient.reply,
            attempted_at=recipient.attempted_at,
            retry_until=until,
        )
