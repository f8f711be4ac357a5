"""Who may send what to whom: the sessions behind the MX and the submission listeners."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from twisted.logger import Logger

from relaymail.hosting.authenticator import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    Authenticator,
    Login,
)
from relaymail.hosting.login_limiter import FailedLoginLimiter
from relaymail.hosting.mailboxes import emails_for, header_only
from relaymail.hosting.remote import RemoteRecipients
from relaymail.hosting.scram import ScramLogins
from relaymail.hosting.senders import AuthorNotPermitted, Authorship, permits
from relaymail.message.envelope import Envelope, EnvelopeRecipient, Origin
from relaymail.message.ids import uuid7
from relaymail.message.limits import Exhausted, ParseLimits
from relaymail.message.record import Record
from relaymail.message.summary import Summary, summarize
from relaymail.message.trace import trace_headers
from relaymail.smtp import reply
from relaymail.smtp.address import Address
from relaymail.smtp.content import Content
from relaymail.smtp.parameters import Parameters, release_time
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.scram import KeyFound, Salting
from relaymail.smtp.session import Peer
from relaymail.store.accounts import Accounts, Owner
from relaymail.store.database import DatabaseError
from relaymail.store.messages import MessageStore
from relaymail.telemetry import Metrics

log = Logger()

T = TypeVar("T")

INLINE_OCTETS: Final = 64 * 1024
INLINE_LIMITS: Final = ParseLimits(seconds=0.005)
"""What is larger, or takes longer to read, is read in a thread: the reactor must not wait for it."""

_DISK_FULL: Final = "53100"


@dataclass(frozen=True, slots=True)
class Hosting:
    """What all sessions share.

    ``run`` runs a function in a thread and returns a Deferred; ``room`` says why no mail can be taken at the
    moment, or ``None``; ``stored`` is called behind each commit; ``seconds`` is a monotonic clock, ``now``
    the time.
    """

    accounts: Accounts
    authenticator: Authenticator
    scram: ScramLogins
    limiter: FailedLoginLimiter
    store: MessageStore
    metrics: Metrics
    run: Callable[..., Any]
    room: Callable[[], Reply | None]
    stored: Callable[[], None]
    seconds: Callable[[], float]
    now: Callable[[], datetime]
    server_name: str
    hosted_domains: frozenset[str]
    """Lower-case A-labels."""
    validate_recipients: bool
    postmaster: str | None
    """The address of the user who gets ``postmaster@…``."""
    deduplicate_mx: bool
    deduplicate_submission: bool
    attachment_limit: int
    header_limit: int
    hop_limit: int
    remote: RemoteRecipients | None = None
    """``None``: nothing is sent on, so nothing is taken for elsewhere."""


class HostingSession:
    """What both kinds of session do: gather the envelope, and have the message stored."""

    def __init__(self, hosting: Hosting, peer: Peer) -> None:
        self._hosting = hosting
        self._peer = peer
        self._login: Login | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the transaction."""
        self._reverse_path = ""
        self._parameters: Parameters = {}
        self._recipients: dict[str, EnvelopeRecipient] = {}

    def closed(self) -> None:
        """Nothing is held beyond the connection."""

    async def authenticate(self, login: str, password: str) -> None:
        """Check a login; every client address has a limit of its own."""
        async with self._hosting.limiter.turn(self._peer.address):
            self._check_logins()
            self._hosting.metrics.auth_attempted(self._peer.listener)
            self._log_in(await self._answered(self._hosting.authenticator.verify(login, password)))

    async def scram_salting(self, login: str) -> Salting:
        """Begin a SCRAM login: what the keys of ``login`` are derived with."""
        self._check_logins()
        salt = await self._answered(self._hosting.scram.salt(login))
        return Salting(salt.salt, salt.iterations)

    async def scram_key(self, login: str, fits: Callable[[bytes], bool]) -> KeyFound:
        """Check a SCRAM login under the same limits; it is the session's once the client has agreed."""
        async with self._hosting.limiter.turn(self._peer.address):
            self._check_logins()
            self._hosting.metrics.auth_attempted(self._peer.listener)
            key = await self._answered(self._hosting.scram.key(login, fits))

        def accept() -> None:
            self._hosting.scram.used(key.key_id)
            self._log_in(Login(key.user_id, key.email, key.key_id))

        return KeyFound(key.server_key, accept)

    def _check_logins(self) -> None:
        """Refuse a client whose logins have failed too often."""
        if self._hosting.limiter.check(self._peer.address) > 0:
            raise ReplyError(reply.TOO_MANY_AUTHENTICATIONS)

    def _log_in(self, login: Login) -> None:
        self._login = login
        self._peer.login = login.email
        self._hosting.limiter.succeeded(self._peer.address)

    async def _answered(self, checking: Awaitable[T]) -> T:
        """What a check comes to; a failure is counted and answered."""
        hosting = self._hosting
        try:
            return await checking
        except AuthenticationFailed:
            hosting.limiter.failed(self._peer.address)
            hosting.metrics.auth_failed(self._peer.listener)
            self._refused("authentication failed")
            raise ReplyError(reply.AUTHENTICATION_FAILED) from None
        except AuthenticationUnavailable as error:
            log.warn(
                "Session {session}: cannot authenticate: {why}", session=self._peer.session_id, why=str(error)
            )
            raise ReplyError(reply.AUTHENTICATION_UNAVAILABLE) from error

    def mail(self, sender: Address | None, parameters: Parameters) -> Awaitable[None] | None:
        """Begin a transaction, if there is room and this client may send as ``sender``."""
        full = self._hosting.room()
        if full is not None:
            raise self._refusal(full, "no room")
        self.reset()
        self._reverse_path = "" if sender is None else str(sender)
        self._parameters = {name: value for name, value in parameters.items() if name != "SIZE"}
        return self._check_sender(sender)

    def _check_sender(self, sender: Address | None) -> Awaitable[None] | None:
        return None

    def recipient(self, recipient: Address, parameters: Parameters) -> Awaitable[None] | None:
        """Add a recipient, if this client may reach it."""
        raise ReplyError(reply.RELAYING_DENIED)

    def _add_local(self, recipient: Address, parameters: Parameters) -> Awaitable[None] | None:
        """Add an address of ours: at once where its owner is known, else behind a look-up."""
        if recipient.local.lower() == "postmaster":
            return self._add_postmaster(recipient, parameters)
        owner = self._hosting.accounts.cached_owner(recipient.keys[0])
        if owner is None:
            return self._look_up(recipient, parameters)
        self._add(recipient, owner, parameters)
        return None

    async def _look_up(self, recipient: Address, parameters: Parameters) -> None:
        owner = await self._owner(recipient)
        if owner is None and not self._without_owner(recipient):
            raise self._refusal(reply.NO_SUCH_MAILBOX, "no such mailbox")
        self._add(recipient, owner, parameters)

    def _without_owner(self, recipient: Address) -> bool:
        """Whether mail for this address is taken although nobody has it."""
        return not self._hosting.validate_recipients and recipient.host in self._hosting.hosted_domains

    async def _add_postmaster(self, recipient: Address, parameters: Parameters) -> None:
        """``postmaster`` is always there (RFC 5321 4.5.1)."""
        hosting = self._hosting
        if not recipient.domain:
            recipient = Address(recipient.local, min(hosting.hosted_domains, default=hosting.server_name))
        owner = await self._owner(recipient)
        if owner is None and hosting.postmaster is not None:
            local, _, domain = hosting.postmaster.rpartition("@")
            owner = await self._owner(Address(local, domain))
        self._add(recipient, owner, parameters)

    async def _owner(self, address: Address) -> Owner | None:
        try:
            for key in address.keys:
                owner = await self._hosting.accounts.owner(key)
                if owner is not None:
                    return owner
        except DatabaseError as error:
            log.warn(
                "Session {session}: cannot look up an address: {why}",
                session=self._peer.session_id,
                why=str(error),
            )
            raise ReplyError(reply.TEMPORARY) from error
        return None

    def _add(self, recipient: Address, owner: Owner | None, parameters: Parameters) -> None:
        user = None if owner is None else owner.user_id
        self._put(recipient, EnvelopeRecipient(str(recipient), user, parameters))

    def _put(self, recipient: Address, row: EnvelopeRecipient) -> None:
        # The same recipient twice is one row
        self._recipients.setdefault(recipient.keys[0], row)

    async def message(self, content: Content) -> str:
        """Store the message; returning means committed."""
        began = self._hosting.seconds()
        digest = await content.finish()
        summary = await self._summarize(content)
        self._check(summary)
        added_sender = await self._check_authors(content, summary)
        record = await self._record(content, digest, summary, added_sender)
        try:
            stored = await self._save(record)
        except DatabaseError as error:
            log.error(
                "Session {session}: message {id} was not stored: {why}",
                session=self._peer.session_id,
                id=record.id,
                why=str(error),
            )
            full = error.sqlstate == _DISK_FULL
            raise self._refusal(reply.NO_ROOM if full else reply.NOT_STORED, "not stored") from error
        self._hosting.stored()
        if self._hosting.remote is not None and any(one.destination for one in self._recipients.values()):
            self._hosting.remote.queued()
        took = self._hosting.seconds() - began
        self._hosting.metrics.message_received(self._peer.listener, content.size)
        self._hosting.metrics.message_processed(self._peer.listener, took)
        log.info(
            "Message {id} accepted: session {session}, from <{sender}>, {recipients} recipients,"
            " {size} bytes, {took:.1f} ms",
            id=stored,
            session=self._peer.session_id,
            sender=self._reverse_path,
            recipients=len(self._recipients),
            size=content.size,
            took=took * 1000,
        )
        return str(stored)

    def _save(self, record: Record) -> Awaitable[UUID]:
        return self._hosting.store.accept(record)

    async def _summarize(self, content: Content) -> Summary:
        whole = content.memory()
        if whole is not None and len(whole) <= INLINE_OCTETS:
            quick = summarize(whole, limits=INLINE_LIMITS)
            if quick.parse_status == "complete":
                return quick
        summary: Summary = await self._hosting.run(lambda: summarize(content.map()))
        return summary

    def _check(self, summary: Summary) -> None:
        hosting = self._hosting
        if summary.header_bytes > hosting.header_limit:
            raise self._refusal(reply.HEADER_TOO_BIG, "header too big")
        if summary.hops > hosting.hop_limit:
            raise self._refusal(reply.TOO_MANY_HOPS, "too many hops")
        if any(attachment.size > hosting.attachment_limit for attachment in summary.attachments):
            raise self._refusal(reply.ATTACHMENT_TOO_BIG, "attachment too big")

    async def _check_authors(self, content: Content, summary: Summary) -> str | None:
        """Refuse what may not be sent from these authors; the address for a ``Sender:`` field to be added."""
        return None

    async def _record(
        self, content: Content, digest: bytes, summary: Summary, added_sender: str | None
    ) -> Record:
        hosting, peer = self._hosting, self._peer
        user = self._login.user_id if self._login else None
        envelope = Envelope(self._reverse_path, tuple(self._recipients.values()), self._parameters)
        origin = Origin(
            peer.listener,
            peer.session_id,
            peer.address,
            peer.name,
            peer.extended,
            user,
            peer.tls.version if peer.tls else None,
            peer.tls.cipher if peer.tls else None,
        )
        now = hosting.now()
        message_id = self._new_id()
        release_at = release_time(self._parameters, now)
        return Record(
            id=message_id,
            received_at=now,
            origin=origin,
            envelope=envelope,
            sha256=digest,
            fingerprint=self._fingerprint(envelope, digest),
            deduplicate=summary.message_id is not None and self._deduplicate(),
            trace_headers=trace_headers(message_id, now, hosting.server_name, origin, envelope),
            header_message_id=summary.message_id or f"{message_id}@{hosting.server_name}",
            summary=summary,
            emails=()
            if release_at
            else emails_for(envelope, summary, user, await self._owners(envelope, summary)),
            content=content,
            added_sender=added_sender,
            release_at=release_at,
        )

    def _new_id(self) -> UUID:
        return uuid7()

    async def _owners(self, envelope: Envelope, summary: Summary) -> Mapping[str, UUID]:
        """Who has the header addresses that the envelope does not reach."""
        unreached = header_only(envelope, summary)
        if not unreached:
            return {}
        try:
            owners = await self._hosting.accounts.owners(unreached)
        except DatabaseError as error:
            raise ReplyError(reply.NOT_STORED) from error
        return {address: owner.user_id for address, owner in owners.items()}

    def _fingerprint(self, envelope: Envelope, digest: bytes) -> UUID:
        """What a resend has in common with the first: client or login, envelope, content."""
        client = str(self._login.user_id) if self._login else self._peer.address
        recipients = sorted(recipient.address.lower() for recipient in envelope.recipients)
        facts = "\0".join((self._peer.listener, client, envelope.reverse_path, *recipients))
        return UUID(bytes=hashlib.sha256(digest + facts.encode("utf-8", "replace")).digest()[:16])

    def _deduplicate(self) -> bool:
        return self._hosting.deduplicate_submission

    def _refused(self, reason: str) -> None:
        self._hosting.metrics.refused(reason)
        log.info(
            "Session {session}: refused {client}: {reason}",
            session=self._peer.session_id,
            client=self._peer.address,
            reason=reason,
        )

    def _refusal(self, answer: Reply, reason: str) -> ReplyError:
        self._refused(reason)
        return ReplyError(answer)


class MXSession(HostingSession):
    """Mail from other hosts: anyone may send, to users of the hosted domains only."""

    def recipient(self, recipient: Address, parameters: Parameters) -> Awaitable[None] | None:
        """Take what is for a hosted domain."""
        if recipient.domain and recipient.host not in self._hosting.hosted_domains:
            raise self._refusal(reply.RELAYING_DENIED, "relaying denied")
        return self._add_local(recipient, parameters)

    def _deduplicate(self) -> bool:
        return self._hosting.deduplicate_mx


class SubmissionSession(HostingSession):
    """Mail of our own users."""

    def _check_sender(self, sender: Address | None) -> Awaitable[None] | None:
        # The null sender is for read receipts and the like
        return None if sender is None or self._login is None else self._may_send_as(sender, self._login)

    async def _may_send_as(self, sender: Address, login: Login) -> None:
        try:
            permitted = await self._hosting.accounts.sender_addresses(login.user_id)
        except DatabaseError as error:
            raise ReplyError(reply.TEMPORARY) from error
        if not permits(permitted, sender):
            raise self._refusal(reply.SENDER_NOT_PERMITTED, "sender not permitted")

    async def _check_authors(self, content: Content, summary: Summary) -> str | None:
        login, hosting = self._login, self._hosting
        if login is None:
            return None
        authorship = Authorship(hosting.accounts, hosting.run)
        try:
            return await authorship.sender_to_add(
                login, content, summary, utf8="SMTPUTF8" in self._parameters
            )
        except AuthorNotPermitted:
            raise self._refusal(reply.AUTHOR_NOT_PERMITTED, "author not permitted") from None
        except (DatabaseError, Exhausted) as error:
            raise ReplyError(reply.NOT_STORED) from error

    def recipient(self, recipient: Address, parameters: Parameters) -> Awaitable[None] | None:
        """Take what is local, and for a login also what is to be sent on."""
        hosted = not recipient.domain or recipient.host in self._hosting.hosted_domains
        return self._add_local(recipient, parameters) if hosted else self._add_user(recipient, parameters)

    async def _add_user(self, recipient: Address, parameters: Parameters) -> None:
        """An address outside the hosted domains is local all the same when a user has it."""
        owner = await self._owner(recipient)
        if owner is not None:
            self._add(recipient, owner, parameters)
        else:
            await self._add_remote(recipient, parameters)

    async def _add_remote(self, recipient: Address, parameters: Parameters) -> None:
        """Nothing is taken that would not be sent; and who has not logged in must not send through us."""
        remote = self._hosting.remote
        if remote is None or self._login is None:
            raise self._refusal(reply.RELAYING_DENIED, "relaying denied")
        try:
            self._put(recipient, await remote.take(recipient, parameters))
        except ReplyError:
            self._refused("recipient suppressed")
            raise
        except DatabaseError as error:
            raise ReplyError(reply.TEMPORARY) from error
