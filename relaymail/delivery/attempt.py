"""One job's try: the message over a connection, or over another one where the first was of no use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.logger import Logger

from relaymail.delivery.connections import Connections, Link, NoConnection, Way
from relaymail.delivery.contents import Content, Contents, Work
from relaymail.delivery.observer import Observer
from relaymail.delivery.signing import Signer
from relaymail.delivery.verdicts import NOWHERE, Place, Verdicts
from relaymail.message.recode import Conversion, RecodeError, Recoder
from relaymail.smtp.client import Interrupted, Mail, MailRecipient, Outcome
from relaymail.store.archive import ArchiveError
from relaymail.store.database import DatabaseError
from relaymail.store.dkim import KeysUnusable
from relaymail.store.queue import Queue, QueuedRecipient, Settlement

log = Logger()

MOST_INLINE: Final = 16 * 1024
"""Octets that are recoded on the reactor's thread."""

_NOT_OURS: Final = frozenset({"final-dot", "before-dot", "local"})
"""Phases in which a failure is no reason to try another host."""

_LOG_IN: Final = frozenset({530, 534, 535, 538})
"""Replies that ask for a login, for another one, or for TLS before it (RFC 3207 4, RFC 4954 4 and 6)."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every try needs.

    ``run`` runs a function in a thread; ``seconds`` is a monotonic clock; ``crash`` is called with
    ``delivery-before-dot`` and ``delivery-after-dot`` right before the final dot leaves, for tests that kill
    the process then, or a moment later.
    """

    queue: Queue
    contents: Contents
    connections: Connections
    signer: Signer
    verdicts: Verdicts
    observer: Observer
    run: Callable[..., Any]
    seconds: Callable[[], float]
    crash: Callable[[str], None] = lambda point: None


@dataclass(frozen=True, slots=True)
class _Form:
    """The message as one host gets it."""

    mail: Mail
    body: bytes | Callable[[], AsyncIterator[bytes]]


class Attempt:
    """The try of one job. Use it once."""

    def __init__(self, tools: Tools, work: Work) -> None:
        self._tools = tools
        self._work = work
        self._job = work.job
        self._began = tools.seconds()
        self.results: list[Settlement] = []
        """What became of recipients so far; to be settled, however the try ends."""
        self.committed = False
        """The final dot may be on its way: from here on the try must not be cancelled."""
        self.connected = False
        """A host answered and was ready for mail."""
        self.pushed_back = False
        """A host wanted no more of us for now (421)."""
        self._signed: dict[Conversion | None, bytes] = {}

    async def run(self, way: Way, link: Link | None) -> Link | None:
        """Try, over ``link`` first if there is one; the connection that may be used for the next job.

        Raises what the database raises, and :exc:`ArchiveError`; then nothing was sent of the recipients
        that have no result.
        """
        content = await self._tools.contents.content(self._work)
        search = None
        pending: Sequence[QueuedRecipient] = self._job.recipients
        reason: tuple[list[Outcome], Place] | None = None
        try:
            while True:
                if link is None:
                    search = search or self._tools.connections.search(way)
                    try:
                        link = await anext(search)
                    except NoConnection as none:
                        self._give_up(pending, none, reason)
                        return None
                self.connected = True
                outcomes = await self._transact(link, pending, content)
                if way.route.kind == "relay":
                    outcomes = [_of_relay(one) for one in outcomes]
                again = (
                    [] if link.connection.usable else [n for n, one in enumerate(outcomes) if _elsewhere(one)]
                )
                for n, outcome in enumerate(outcomes):
                    if n not in again:
                        self._settle(pending[n], outcome, link.place)
                if not again:
                    return link
                reason = [outcomes[n] for n in again], link.place
                pending = [pending[n] for n in again]
                link.connection.quit()
                link = None
        except BaseException:
            # Nobody else knows of it
            if link is not None:
                link.connection.quit()
            raise
        finally:
            if search is not None:
                await search.aclose()

    @property
    def left(self) -> list[QueuedRecipient]:
        """Recipients without a result."""
        done = {result.id for result in self.results}
        return [recipient for recipient in self._job.recipients if recipient.id not in done]

    def defer_rest(self, why: str) -> None:
        """Our own side failed in a way that is not over at once: try whoever has no result later."""
        outcome = Outcome("deferred", "4.3.0", None, "local", why, in_doubt=self.committed)
        for recipient in self.left:
            self.results.append(self._tools.verdicts.of(self._job, recipient, outcome))

    def _give_up(
        self,
        pending: Sequence[QueuedRecipient],
        none: NoConnection,
        reason: tuple[list[Outcome], Place] | None,
    ) -> None:
        """No host is left. What one of them had to say is told rather than that others are away."""
        for n, recipient in enumerate(pending):
            if reason is not None:
                self._settle(recipient, reason[0][n], reason[1])
            else:
                self._settle(recipient, none.worst.outcome, none.worst.place)

    async def _transact(
        self, link: Link, recipients: Sequence[QueuedRecipient], content: Content
    ) -> list[Outcome]:
        """Send the message to these recipients; an outcome for each."""
        addressed = tuple(MailRecipient(one.address, one.parameters) for one in recipients)
        try:
            form = await self._form(link, addressed, content)
        except RecodeError as error:
            return [Outcome("failed", "5.6.3", None, "local", str(error))] * len(recipients)
        except KeysUnusable as error:
            # What is wrong with our files is for the operator; the outcome is also for the sender
            log.error(
                "Message {id} cannot be signed and waits: {why}", id=self._job.message_id, why=str(error)
            )
            why = "the message cannot be signed here at the moment"
            return [Outcome("deferred", "4.3.5", None, "local", why)] * len(recipients)

        async def before_dot(accepted: Sequence[int]) -> bool:
            return await self._begin(link, [recipients[n] for n in accepted])

        began = self._tools.seconds()
        body = form.body if isinstance(form.body, bytes) else form.body()
        try:
            outcomes = await link.connection.send(form.mail, body, before_dot)
        except Interrupted as interrupted:
            outcomes = self._interrupted(interrupted)
        self.pushed_back |= any(one.reply is not None and one.reply.code == 421 for one in outcomes)
        self._tools.observer.delivery_took(self._tools.seconds() - began)
        return outcomes

    async def _begin(self, link: Link, accepted: Sequence[QueuedRecipient]) -> bool:
        """Note that the end of the message is about to be sent. Whoever the host accepted gets it, so all of
        them must still be ours."""
        ids = [recipient.id for recipient in accepted]
        place = link.place
        ours = await self._tools.queue.begin_transfer(
            self._job, ids, host=place.host or "", address=place.address or "", tls=place.tls
        )
        if len(ours) < len(ids):
            log.info(
                "Message {id} to {destination}: {count} recipients belong to others by now, nothing is sent",
                id=self._job.message_id,
                destination=self._job.destination,
                count=len(ids) - len(ours),
            )
            return False
        self.committed = True
        self._tools.crash("delivery-before-dot")
        self._tools.crash("delivery-after-dot")
        return True

    def _settle(self, recipient: QueuedRecipient, outcome: Outcome, place: Place = NOWHERE) -> None:
        if outcome.phase == "before-dot":
            return  # it was not tried after all
        took = self._tools.seconds() - self._began
        self.results.append(self._tools.verdicts.of(self._job, recipient, outcome, place, took))

    def _interrupted(self, interrupted: Interrupted) -> list[Outcome]:
        """Our own side failed in the middle: what the host has refused stands, the rest is tried again; at
        once where it is the database that has gone."""
        cause = interrupted.__cause__
        if isinstance(cause, DatabaseError):
            return [
                replace(one, phase="before-dot") if one.verdict == "deferred" else one
                for one in interrupted.outcomes
            ]
        log.error("Message {id} could not be read to its end: {why}", id=self._job.message_id, why=str(cause))
        if not isinstance(cause, ArchiveError):
            self._tools.observer.unexpected_error()
        return interrupted.outcomes

    # The message as this host gets it

    async def _form(self, link: Link, addressed: tuple[MailRecipient, ...], content: Content) -> _Form:
        job = self._job
        mail = Mail(
            job.reverse_path,
            addressed,
            content.size,
            job.parameters,
            eight_bit=content.eight_bit,
            utf8_header=content.utf8_header,
            binary=content.binary,
        )
        conversion = None
        if content.eight_bit or content.binary:
            conversion = link.connection.needs(mail).conversion
        whole = content.whole
        if whole is not None and conversion is not None:
            whole = await self._recoded(whole, conversion)
        if conversion not in self._signed:
            # The header section first: for most it says that there is no key, and then the rest is not read
            form = _in_two(whole) if whole is not None else self._parts(conversion)
            self._signed[conversion] = await self._tools.signer.fields(form)
        signature = self._signed[conversion]
        size = len(signature) + (content.size if whole is None else len(whole))
        mail = Mail(
            job.reverse_path,
            addressed,
            size,
            job.parameters,
            eight_bit=content.eight_bit and conversion != "7bit",
            utf8_header=content.utf8_header,
            binary=content.binary and conversion is None,
        )
        if whole is not None:
            return _Form(mail, signature + whole)
        return _Form(mail, lambda: self._signed_parts(signature, conversion))

    async def _recoded(self, whole: bytes, conversion: Conversion) -> bytes:
        def recode() -> bytes:
            recoder = Recoder(conversion)
            return recoder.feed(whole) + recoder.finish()

        if len(whole) <= MOST_INLINE:
            return recode()
        recoded: bytes = await self._tools.run(recode)
        return recoded

    async def _signed_parts(self, signature: bytes, conversion: Conversion | None) -> AsyncIterator[bytes]:
        if signature:
            yield signature
        async for part in self._parts(conversion):
            yield part

    async def _parts(self, conversion: Conversion | None) -> AsyncIterator[bytes]:
        parts = self._tools.contents.parts(self._work)
        if conversion is None:
            async for part in parts:
                yield part
            return
        recoder = Recoder(conversion)
        async for part in parts:
            if piece := await self._tools.run(recoder.feed, part):
                yield piece
        if piece := recoder.finish():
            yield piece


def _in_two(whole: bytes) -> list[bytes]:
    """Header section and body."""
    header, end, body = whole.partition(b"\r\n\r\n")
    return [header + end, body]


def _of_relay(outcome: Outcome) -> Outcome:
    """A relay that wants a login has nothing against the mail, which waits until the settings are right."""
    if outcome.verdict != "failed" or outcome.reply is None or outcome.reply.code not in _LOG_IN:
        return outcome
    status = f"4{outcome.status[1:]}"
    return replace(outcome, verdict="deferred", status=status, why="the relay asks for a login or for TLS")


def _elsewhere(outcome: Outcome) -> bool:
    """Whether another host, or the same one over a new connection, may do better: this one has gone away."""
    if outcome.verdict != "deferred" or outcome.in_doubt or outcome.phase in _NOT_OURS:
        return False
    return outcome.reply is None or outcome.reply.code == 421
