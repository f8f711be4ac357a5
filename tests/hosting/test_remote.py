"""Mail of our users for elsewhere: taken from a login while outbound is on, refused otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from twisted.internet.defer import maybeDeferred

from relaymail.hosting.remote import RemoteRecipients
from relaymail.hosting.session import Hosting, HostingSession, MXSession, SubmissionSession
from relaymail.smtp import reply
from relaymail.smtp.address import parse_path
from relaymail.smtp.content import Content
from relaymail.smtp.parameters import Parameters
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.store.database import Database, DatabaseUnavailable
from relaymail.store.suppression import Suppression
from tests.hosting.conftest import add_user, session

SINCE = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)


def remote(suppressed: Mapping[str, Suppression] | None = None) -> RemoteRecipients:
    async def find(address: str) -> Suppression | None:
        return (suppressed or {}).get(address)

    return RemoteRecipients(find, lambda: None)


@pytest.fixture
def sending(hosting: Hosting) -> Hosting:
    """The same with outbound on."""
    return replace(hosting, remote=remote())


async def recipient(session: HostingSession, path: str, parameters: Parameters | None = None) -> Reply | None:
    """The refusal of a recipient, or ``None``."""
    address, _ = parse_path(path, utf8=True)
    assert address is not None
    try:
        decision = session.recipient(address, parameters or {})
        if decision is not None:
            await decision
    except ReplyError as refusal:
        return refusal.reply
    return None


def destinations(session: HostingSession) -> dict[str, str | None]:
    return {found.address: found.destination for found in session._recipients.values()}


async def test_a_login_reaches_others_and_users(sending: Hosting, database: Database) -> None:
    user = await add_user(database, "user@example.test")
    await add_user(database, "friend@elsewhere.example")
    mine = session(sending, SubmissionSession, user)
    for path in ("<user@example.test>", "<friend@ELSEWHERE.example>", "<postmaster>"):
        assert await recipient(mine, path) is None
    for path in (
        "<a@Elsewhere.Example>",
        "<é@BÜCHER.example.org>",
        "<a@[192.0.2.1]>",
        "<a@[IPv6:2001:DB8::1]>",
    ):
        assert await recipient(mine, path, {"NOTIFY": "NEVER"}) is None
    assert destinations(mine) == {
        "user@example.test": None,
        "friend@ELSEWHERE.example": None,
        "postmaster@example.test": None,
        "a@Elsewhere.Example": "elsewhere.example",
        "é@BÜCHER.example.org": "xn--bcher-kva.example.org",
        "a@[192.0.2.1]": "[192.0.2.1]",
        "a@[IPv6:2001:DB8::1]": "[ipv6:2001:db8::1]",
    }
    assert mine._recipients["a@elsewhere.example"].parameters == {"NOTIFY": "NEVER"}
    # In a domain of ours nobody is remote
    assert await recipient(mine, "<nobody@example.test>") is reply.NO_SUCH_MAILBOX


async def test_the_same_recipient_twice_is_sent_one_copy(sending: Hosting, database: Database) -> None:
    mine = session(sending, SubmissionSession, await add_user(database, "user@example.test"))
    for path in ("<a@elsewhere.example>", "<A@Elsewhere.EXAMPLE>"):
        assert await recipient(mine, path) is None
    assert len(destinations(mine)) == 1


async def test_nobody_sends_on_without_a_login(sending: Hosting, database: Database) -> None:
    """As ``Smtp:RequireAuthentication=false`` allows sessions without one."""
    for kind in (SubmissionSession, MXSession):
        assert await recipient(session(sending, kind), "<a@elsewhere.example>") is reply.RELAYING_DENIED


async def test_with_outbound_off_nothing_is_taken_for_elsewhere(hosting: Hosting, database: Database) -> None:
    mine = session(hosting, SubmissionSession, await add_user(database, "user@example.test"))
    assert await recipient(mine, "<a@elsewhere.example>") is reply.RELAYING_DENIED


async def test_a_suppressed_address_is_refused_with_reason_and_date(
    hosting: Hosting, database: Database
) -> None:
    address = "gone@xn--bcher-kva.example.org"
    text = "550 5.1.1 no such\nuser \u202e" + "here " * 100
    known = Suppression(address, "5.1.1", text, SINCE, SINCE + timedelta(30), None)
    sending = replace(hosting, remote=remote({address: known}))
    mine = session(sending, SubmissionSession, await add_user(database, "user@example.test"))
    refusal = await recipient(mine, "<Gone@bücher.example.org>")
    assert refusal is not None
    assert (refusal.code, refusal.enhanced) == (550, "5.1.1")
    assert "since 2026-11-01" in refusal.text
    assert "550 5.1.1 no such user" in refusal.text
    assert len(refusal.data) < 512
    assert refusal.data.isascii()
    assert refusal.data.count(b"\r\n") == 1
    assert await recipient(mine, "<other@xn--bcher-kva.example.org>") is None


async def test_a_list_that_cannot_be_read_is_temporary(hosting: Hosting, database: Database) -> None:
    async def find(address: str) -> Suppression | None:
        raise DatabaseUnavailable("away")

    mine = session(
        replace(hosting, remote=RemoteRecipients(find, lambda: None)),
        SubmissionSession,
        await add_user(database, "user@example.test"),
    )
    assert await recipient(mine, "<a@elsewhere.example>") is reply.TEMPORARY


async def test_sent_mail_names_those_elsewhere_but_for_the_hidden(
    sending: Hosting, database: Database, tmp_path: Path
) -> None:
    user = await add_user(database, "user@example.test")
    local = await add_user(database, "local@example.test")
    mine = session(sending, SubmissionSession, user)
    raw = (
        b"From: user@example.test\r\nTo: Anna <anna@elsewhere.example>, local@example.test\r\n"
        b"Cc: Carl <carl@elsewhere.example>\r\n\r\nHello\r\n"
    )
    mine.mail(None, {})
    for name in ("anna@elsewhere.example", "carl@elsewhere.example", "hidden@elsewhere.example"):
        assert await recipient(mine, f"<{name}>") is None
    assert await recipient(mine, "<local@example.test>") is None
    content = Content(tmp_path, maybeDeferred)
    content.write(raw)
    await mine.message(content)
    content.close()
    rows = await database.query(
        "test.rows",
        'SELECT e."SentByUserId", r."Type", r."Address", r."DisplayName", r."UserId"'
        ' FROM public."Emails" e JOIN public."EmailRecipients" r ON r."EmailId" = e."Id"'
        ' ORDER BY r."Address"',
    )
    assert rows == [
        (user, "To", "anna@elsewhere.example", "Anna", None),
        (user, "Cc", "carl@elsewhere.example", "Carl", None),
        (user, "To", "local@example.test", None, local),
    ]
    ((count,),) = await database.query("test.emails", 'SELECT count(*) FROM public."Emails"')
    assert count == 1
    queued = await database.query(
        "test.queue", "SELECT recipient, destination FROM relaymail.queue ORDER BY recipient"
    )
    assert queued == [
        (address, "elsewhere.example")
        for address in ("anna@elsewhere.example", "carl@elsewhere.example", "hidden@elsewhere.example")
    ]
