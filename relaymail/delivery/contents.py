"""The content of messages on their way: small ones read ahead, many in a statement; large ones as they go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from relaymail.store import outgoing
from relaymail.store.archive import Archive
from relaymail.store.database import Database
from relaymail.store.outgoing import SmallMessage
from relaymail.store.queue import Job

SMALL: Final = 64 * 1024
"""Octets as received up to which a message is held in memory."""


@dataclass(frozen=True, slots=True)
class Content:
    """A message as it is to be sent, before it is recoded or signed."""

    size: int
    """Octets; of a large one those received, without the few fields that are put in front: more than it has
    could have it refused here, for being too big for the host."""
    whole: bytes | None
    """All of it, where it is small."""
    eight_bit: bool
    utf8_header: bool
    binary: bool


@dataclass(frozen=True, slots=True)
class Work:
    """A job, and its message where that is small."""

    job: Job
    message: SmallMessage | None


class Contents:
    """Reads messages. Every method raises ``DatabaseError`` and ``ArchiveError``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._archive = Archive(database)

    async def read_ahead(self, jobs: Sequence[Job]) -> list[Work]:
        """The jobs with their messages, as far as those are small."""
        small: Collection[UUID] = {job.message_id for job in jobs if job.size <= SMALL}
        found = await outgoing.small_messages(self._database, small)
        return [Work(job, found.get(job.message_id) if job.size <= SMALL else None) for job in jobs]

    async def content(self, work: Work) -> Content:
        """What has to be known of the message before it is sent."""
        binary = (work.job.parameters.get("BODY") or "").upper() == "BINARYMIME"
        if work.message is not None:
            whole = work.message.delivered()
            if whole.isascii():
                return Content(len(whole), whole, eight_bit=False, utf8_header=False, binary=binary)
            header, _, body = whole.partition(b"\r\n\r\n")
            return Content(len(whole), whole, not body.isascii(), not header.isascii(), binary)
        # Reading all of it only to know whether it is ASCII costs more than to say that it may not be
        header = await self._header(work.job.message_id)
        return Content(work.job.size, None, True, not header.isascii(), binary)

    def parts(self, work: Work) -> AsyncIterator[bytes]:
        """The message once more from its beginning, in parts."""
        return self._archive.export_delivered(work.job.message_id)

    async def _header(self, message_id: UUID) -> bytes:
        """The header section, which the listener has limited."""
        parts: Any = self._archive.export_delivered(message_id)
        begun: bytes = b""
        try:
            async for part in parts:
                begun += part
                if b"\r\n\r\n" in begun:
                    break
            return begun.partition(b"\r\n\r\n")[0]
        finally:
            await parts.aclose()
