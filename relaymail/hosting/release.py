"""Lets held messages go when their time has come (FUTURERELEASE, RFC 4865)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relaymail.hosting.mailboxes import emails_for, header_only
from relaymail.message.record import Record
from relaymail.message.summary import summarize
from relaymail.smtp.content import Content, SpoolError
from relaymail.store import held
from relaymail.store.accounts import Accounts
from relaymail.store.archive import Archive, ArchiveError
from relaymail.store.database import Database, DatabaseError
from relaymail.store.held import Held

log = Logger()

INTERVAL: Final = 5.0
"""Seconds between looks; the times themselves are the database's."""
BATCH: Final = 20
UNUSED: Final = UUID(int=0)
"""A release is no acceptance: nothing is compared with its fingerprint."""


class Releaser:
    """Looks every few seconds for held messages whose time has come. Any number of hosts may do so at once.

    :param new_content: makes a place for a message.
    :param run: runs a function in a thread.
    :param released: called behind each release.
    """

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        *,
        reactor: Any,
        new_content: Callable[[], Content],
        run: Callable[..., Any],
        now: Callable[[], datetime],
        released: Callable[[], None],
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._archive = Archive(database)
        self._new_content = new_content
        self._run = run
        self._now = now
        self._released = released
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin to look."""
        self._loop.start(INTERVAL)

    async def stop(self) -> None:
        """Look no more; a release under way ends with the database."""
        if self._loop.running:
            self._loop.stop()

    async def release_due(self) -> int:
        """Release what is due, except what cannot be released, and return how many messages it was.

        :raises DatabaseError: the database failed.
        """
        count = 0
        tried: set[UUID] = set()
        while messages := await held.due(self._database, BATCH, tried):
            for message in messages:
                tried.add(message.id)
                count += await self._try(message)
        return count

    async def _look(self) -> None:
        try:
            await self.release_due()
        except DatabaseError as error:
            log.debug("Held messages cannot be looked for: {why}", why=str(error))
        except Exception:
            # Raised, it would be the last look
            log.failure("Held messages cannot be looked for")

    async def _try(self, message: Held) -> bool:
        """Release one; whether that was done, and by us."""
        content = self._new_content()
        try:
            done = await self._release(message, content)
        except (ArchiveError, SpoolError, DatabaseError) as error:
            if isinstance(error, DatabaseError) and not (error.blames_values or error.is_of("23", "XX")):
                # It is not this message: the others would fare no better
                raise
            log.error("Held message {id} cannot be released yet: {why}", id=message.id, why=str(error))
            return False
        except Exception:
            log.failure("Held message {id} cannot be released yet", id=message.id)
            return False
        finally:
            content.close()
        if done:
            log.info("Message {id} released", id=message.id)
            self._released()
        return done

    async def _release(self, message: Held, content: Content) -> bool:
        async for part in self._archive.export(message.id):
            full = content.write(part)
            if full is not None:
                await full
        await content.finish()
        return await held.release(self._database, await self._record(message, content), self._run)

    async def _record(self, message: Held, content: Content) -> Record:
        summary = await self._run(lambda: summarize(content.map()))
        unreached = header_only(message.envelope, summary)
        owners = await self._accounts.owners(unreached) if unreached else {}
        others = {address: owner.user_id for address, owner in owners.items()}
        return Record(
            id=message.id,
            received_at=self._now(),
            origin=message.origin,
            envelope=message.envelope,
            sha256=message.sha256,
            fingerprint=UNUSED,
            deduplicate=False,
            trace_headers=message.trace_headers,
            header_message_id=message.header_message_id,
            summary=summary,
            emails=emails_for(message.envelope, summary, message.origin.login_user_id, others),
            content=content,
        )
