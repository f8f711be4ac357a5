"""Who may send what to whom, asked of the sessions themselves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from relaymail.hosting.session import Hosting, HostingSession, MXSession, SubmissionSession
from relaymail.smtp import reply
from relaymail.smtp.address import Address, parse_path
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.store.database import Database
from tests.hosting.conftest import add_user, session


def address(path: str) -> Address:
    found, rest = parse_path(path, utf8=True)
    assert found is not None
    assert rest == ""
    return found


async def recipient(session: HostingSession, path: str) -> Reply | None:
    """The refusal of a recipient, or ``None``."""
    return await answer(lambda: session.recipient(address(path), {}))


async def sender(session: HostingSession, path: str) -> Reply | None:
    return await answer(lambda: session.mail(None if path == "<>" else address(path), {}))


async def answer(ask: Any) -> Reply | None:
    try:
        decision = ask()
        if decision is not None:
            await decision
    except ReplyError as refusal:
        return refusal.reply
    return None


def reached(session: HostingSession) -> Mapping[str, UUID | None]:
    return {found.address: found.user_id for found in session._recipients.values()}


async def test_the_mx_takes_mail_for_users_of_the_hosted_domains_only(
    hosting: Hosting, database: Database
) -> None:
    user = await add_user(database, "User@example.test")
    await add_user(database, "user@elsewhere.example")
    mx = session(hosting)
    assert await recipient(mx, "<user@EXAMPLE.test>") is None
    assert await recipient(mx, '<"user"@example.test>') is None
    assert await recipient(mx, "<@relay.example:user@example.test>") is None
    assert await recipient(mx, "<other@example.test>") is reply.NO_SUCH_MAILBOX
    assert await recipient(mx, '<""@example.test>') is reply.NO_SUCH_MAILBOX
    for path in (
        "<user@elsewhere.example>",
        "<user@sub.example.test>",
        "<user@notexample.test>",
        "<user@[127.0.0.1]>",
        "<postmaster@elsewhere.example>",
    ):
        assert await recipient(mx, path) is reply.RELAYING_DENIED
    for path in (
        '<"user@elsewhere.example"@example.test>',
        "<user%elsewhere.example@example.test>",
        "<elsewhere.example!user@example.test>",
    ):
        assert await recipient(mx, path) is reply.NO_SUCH_MAILBOX
    assert reached(mx) == {"user@EXAMPLE.test": user}


@pytest.mark.parametrize("stored", ["é@bücher.example", "é@xn--bcher-kva.example"])
async def test_an_internationalized_address_is_found_in_either_spelling(
    hosting: Hosting, database: Database, stored: str
) -> None:
    user = await add_user(database, stored)
    mx = session(hosting)
    assert await recipient(mx, "<é@BÜCHER.example>") is None
    assert await recipient(mx, "<e\u0301@xn--bcher-kva.example>") is None
    assert list(reached(mx).values()) == [user]


async def test_a_bare_postmaster_is_the_same_one_in_every_process(hosting: Hosting) -> None:
    """The order of a set is another in each."""
    domains = [f"{letter}.example" for letter in "hgfedcba"]
    for order in itertools.islice(itertools.permutations(domains), 0, 5000, 499):
        mx = session(replace(hosting, hosted_domains=frozenset(order)))
        assert await recipient(mx, "<Postmaster>") is None
        assert reached(mx) == {"Postmaster@a.example": None}


async def test_the_configured_user_gets_what_is_for_postmaster(hosting: Hosting, database: Database) -> None:
    user = await add_user(database, "boss@example.test")
    for kind in (MXSession, SubmissionSession):
        made = session(replace(hosting, postmaster="boss@example.test"), kind)
        assert await recipient(made, "<POSTMASTER>") is None
        assert list(reached(made).values()) == [user]


async def test_submission_without_a_login_opens_no_relay(hosting: Hosting, database: Database) -> None:
    """As ``Smtp:RequireAuthentication=false`` allows it."""
    await add_user(database, "user@example.test")
    await add_user(database, "user@elsewhere.example")
    anyone = session(hosting, SubmissionSession)
    assert await sender(anyone, "<whoever@wherever.example>") is None
    assert await recipient(anyone, "<user@example.test>") is None
    assert await recipient(anyone, "<user@elsewhere.example>") is None
    assert await recipient(anyone, "<other@example.test>") is reply.NO_SUCH_MAILBOX
    assert await recipient(anyone, "<other@elsewhere.example>") is reply.RELAYING_DENIED
    assert await recipient(anyone, "<postmaster@elsewhere.example>") is reply.RELAYING_DENIED


async def test_a_login_sends_as_itself_or_as_nobody(hosting: Hosting, database: Database) -> None:
    user = await add_user(database, "user@example.test")
    await add_user(database, "other@example.test")
    mine = session(hosting, SubmissionSession, user)
    assert await sender(mine, "<USER@Example.Test>") is None
    assert await sender(mine, "<>") is None
    for path in ("<other@example.test>", '<"user@example.test"@evil.example>', '<""@example.test>'):
        assert await sender(mine, path) is reply.SENDER_NOT_PERMITTED


async def test_what_the_database_cannot_tell_is_temporary(hosting: Hosting, database: Database) -> None:
    user = uuid4()
    await database.stop()
    for path in ("<user@example.test>", "<postmaster>"):
        assert await recipient(session(hosting), path) is reply.TEMPORARY
    mine = session(hosting, SubmissionSession, user)
    assert await sender(mine, "<user@example.test>") is reply.TEMPORARY
    assert (
        await answer(lambda: mine.authenticate("user@example.test", "key"))
        is reply.AUTHENTICATION_UNAVAILABLE
    )


async def test_a_host_without_room_refuses_at_mail(hosting: Hosting) -> None:
    full = session(replace(hosting, room=lambda: reply.NO_ROOM))
    assert await sender(full, "<a@example.org>") is reply.NO_ROOM
