"""Fills the queue of a host with messages, as a client that submits them would, but without the client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import UUID

from psycopg2.extensions import parse_dsn
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred

from relaymail.message.envelope import Envelope, EnvelopeRecipient, Origin
from relaymail.message.ids import uuid7
from relaymail.message.record import Record
from relaymail.message.summary import summarize
from relaymail.message.trace import trace_headers
from relaymail.smtp.content import Content
from relaymail.store.database import Database
from relaymail.store.messages import MessageStore

AT_ONCE: Final = 64
SENDER: Final = "sender@example.test"


@dataclass(frozen=True)
class Fill:
    """Recipients in one domain, in messages of so many."""

    domain: str
    recipients: int
    octets: int
    together: int = 1


def fill(url: str, fills: Sequence[Fill]) -> None:
    """Queue it all; in a process of its own, which has a reactor."""
    told = json.dumps([asdict(one) for one in fills])
    subprocess.run([sys.executable, "-m", "tests.bench.queued", url], input=told, text=True, check=True)


def record(domain: str, first: int, count: int, octets: int, content: Content) -> Record:
    """A message of ``octets`` to ``count`` recipients of ``domain``, whose bytes go into ``content``."""
    fields = f"From: {SENDER}\r\nTo: u{first}@{domain}\r\nSubject: {first}\r\n"
    head = f"{fields}Message-ID: <{first}@{domain}>\r\n\r\n"
    line = "x" * 70 + "\r\n"
    raw = (head + line * ((octets - len(head)) // len(line))).encode()
    content.write(raw)
    now, message_id = datetime.now(UTC), uuid7()
    recipients = tuple(
        EnvelopeRecipient(f"u{n}@{domain}", destination=domain) for n in range(first, first + count)
    )
    envelope = Envelope(SENDER, recipients)
    origin = Origin("submission", "BENCH", "127.0.0.1", "bench.test")
    digest = sha256(raw).digest()
    return Record(
        id=message_id,
        received_at=now,
        origin=origin,
        envelope=envelope,
        sha256=digest,
        fingerprint=UUID(bytes=digest[:16]),
        deduplicate=False,
        trace_headers=trace_headers(message_id, now, "bench.test", origin, envelope),
        header_message_id=f"{first}@{domain}",
        summary=summarize(raw),
        emails=(),
        content=content,
    )


async def _fill(url: str, fills: Sequence[Fill], reactor: Any) -> None:
    database = Database(parse_dsn(url), reactor=reactor)
    database.start()
    store = MessageStore(database, reactor=reactor, run=maybeDeferred)
    # One message of each domain after the other, as they would come
    waiting = [
        (one, first)
        for first in range(0, max(one.recipients for one in fills), 1)
        for one in fills
        if first < one.recipients and first % one.together == 0
    ]
    with TemporaryDirectory() as folder:

        async def send(one: Fill, first: int) -> None:
            content = Content(Path(folder), maybeDeferred)
            await store.accept(record(one.domain, first, one.together, one.octets, content))
            content.close()

        for at in range(0, len(waiting), AT_ONCE):
            batch = waiting[at : at + AT_ONCE]
            await gatherResults([Deferred.fromCoroutine(send(*pair)) for pair in batch])
    await database.stop()


def main() -> None:
    """What :func:`fill` runs."""
    from twisted.internet import reactor as global_reactor
    from twisted.internet.task import react

    fills = [Fill(**one) for one in json.loads(sys.stdin.read())]
    react(lambda reactor: Deferred.fromCoroutine(_fill(sys.argv[1], fills, global_reactor)))


if __name__ == "__main__":
    main()
