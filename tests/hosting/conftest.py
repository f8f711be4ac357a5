"""What sessions share, on a database of the test's, and who uses them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from twisted.internet.defer import maybeDeferred

from relaymail.hosting.authenticator import Authenticator, Login
from relaymail.hosting.login_limiter import FailedLoginLimiter
from relaymail.hosting.scram import ScramLogins
from relaymail.hosting.session import Hosting, HostingSession, MXSession
from relaymail.smtp.address import parse_mailbox
from relaymail.smtp.content import Content
from relaymail.smtp.parameters import Parameters
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.session import Peer
from relaymail.store.accounts import Accounts
from relaymail.store.database import Database
from relaymail.store.messages import MessageStore
from relaymail.store.scram import ScramKeys
from relaymail.telemetry import Metrics
from tests.conftest import reactor


@pytest.fixture
def hosting(database: Database) -> Hosting:
    accounts = Accounts(database, clock=reactor)
    return Hosting(
        accounts=accounts,
        authenticator=Authenticator(accounts, salt=None, reactor=reactor),
        scram=ScramLogins(ScramKeys(database), lambda key: None),
        limiter=FailedLoginLimiter(reactor, 5, 900.0, 1.0, 30.0),
        store=MessageStore(database, reactor=reactor, run=maybeDeferred),
        metrics=Metrics(),
        run=maybeDeferred,
        room=lambda: None,
        stored=lambda: None,
        seconds=reactor.seconds,
        now=lambda: datetime.now(UTC),
        server_name="mx.example.test",
        hosted_domains=frozenset({"example.test", "xn--bcher-kva.example"}),
        validate_recipients=True,
        postmaster=None,
        deduplicate_mx=True,
        deduplicate_submission=False,
        attachment_limit=1000,
        header_limit=1000,
        hop_limit=100,
    )


def session(
    hosting: Hosting,
    kind: type[HostingSession] = MXSession,
    login: UUID | None = None,
    email: str = "user@example.test",
) -> HostingSession:
    """A session of this kind; of the user ``login`` with the address ``email`` if given."""
    listener = "mx" if kind is MXSession else "submission"
    made = kind(hosting, Peer("session", listener, "192.0.2.1", 25, "client.example.org", True))
    if login is not None:
        made._login = Login(login, email, uuid4())
    return made


async def send(
    session: HostingSession,
    raw: bytes,
    folder: Path,
    *,
    sender: str = "",
    recipient: str = "postmaster@example.test",
    memory: int = 256 * 1024,
    parameters: Parameters | None = None,
) -> UUID | Reply:
    """A whole transaction: the id, or the reply of the refusal; spooled where longer than ``memory``."""
    content = Content(folder, maybeDeferred, memory)
    try:
        for decision in (
            session.mail(parse_mailbox(sender) if sender else None, parameters or {}),
            session.recipient(parse_mailbox(recipient), {}),
        ):
            if decision is not None:
                await decision
        content.write(raw)
        return UUID(await session.message(content))
    except ReplyError as refusal:
        return refusal.reply
    finally:
        content.close()


async def add_user(database: Database, email: str) -> UUID:
    user = uuid4()
    await database.execute(
        "test.user",
        'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt")'
        " VALUES (%s, %s, 'test', %s, now())",
        (user, str(user), email),
    )
    return user
