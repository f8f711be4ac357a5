"""Whom a login may name in ``From:``, and when it is named itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from relaymail.hosting.senders import sender_field
from relaymail.hosting.session import Hosting, MXSession, SubmissionSession
from relaymail.smtp import reply
from relaymail.store.database import Database
from tests.hosting.conftest import add_user, send, session
from tests.message.build import lines

USER = "user@example.test"


@pytest.fixture
def hosting(hosting: Hosting) -> Hosting:
    """Without a limit for header sections in the way."""
    return replace(hosting, header_limit=1 << 24)


async def user_with_addresses(database: Database, email: str = USER) -> UUID:
    """Has further addresses and grants; so has somebody else."""
    user = await add_user(database, email)
    other = await add_user(database, "other@example.test")
    for owner, address, verified in (
        (user, "Alias@example.test", True),
        (user, "é@bücher.example", True),
        (user, "unverified@example.test", False),
        (other, "theirs@example.test", True),
    ):
        await database.execute(
            "test.address",
            'INSERT INTO public."UserEmailAddresses" ("Id", "UserId", "Address", "IsVerified", "AddedAt")'
            " VALUES (gen_random_uuid(), %s, %s, %s, now())",
            (owner, address, verified),
        )
    for granted in ("team@example.test", "@Grants.example", "@xn--bcher-kva.example", "a..b@docomo.test"):
        await database.execute(
            "test.grant",
            "INSERT INTO relaymail.sender_grant (user_id, address) VALUES (%s, lower(%s))",
            (user, granted),
        )
    return user


async def added_sender(database: Database, message: object) -> str | None:
    assert isinstance(message, UUID), message
    rows = await database.query(
        "test.sender", "SELECT added_sender FROM relaymail.message WHERE id = %s", (message,)
    )
    (found,) = rows[0]
    return None if found is None else str(found)


OWN = [
    "user@example.test",
    "User Name <USER@Example.Test>",
    '"user"@example.test',
    "=?utf-8?q?M=C3=BCller?= <alias@example.test>",
    "me: ALIAS@EXAMPLE.TEST;",
    "É@BÜCHER.example",
    "user@example.test, User <user@EXAMPLE.test>",
    " \r\n\tuser@example.test\r\n (me)",
]
GRANTED = [
    "The team <team@example.test>",
    "anyone@GRANTS.example",
    "someone@bücher.example",
    "someone@xn--bcher-kva.example",
    "a..b@docomo.test",
    "user@example.test, team@example.test",
    "alias@example.test, user@example.test",
]
FOREIGN = [
    "other@example.test",
    "theirs@example.test",
    "unverified@example.test",
    "user@example.test, other@example.test",
    "other@example.test, user@example.test",
    "user@example.test <other@example.test>",
    "<user@example.test> <other@example.test>",
    "me: user@example.test, other@example.test;",
    "anyone@sub.grants.example",
    "anyone@notgrants.example",
    '"user@example.test"@evil.example',
    "user@example.test\r\nFrom: other@example.test",
    "user@example.test\r\nfROM \t: other@example.test",
    "user@example.test\r\nSender: user@example.test\r\nFrom: other@example.test",
    f"{'x' * 65}@example.test",
    f"x@{'ü' * 10_000}.example",
    '"x\\"y"@elsewhere.example',
    "postmaster",
    "Just a name",
    "root (Cron Daemon)",
    "undisclosed:;",
    "",
]


@pytest.mark.parametrize("reverse_path", [USER, "", "team@example.test"])
async def test_a_login_writes_as_whom_it_may_send_as(
    hosting: Hosting, database: Database, tmp_path: Path, reverse_path: str
) -> None:
    """Its own name is added where it was only granted the other one, or where there are several."""
    user = await user_with_addresses(database)
    for author in [*OWN, *GRANTED]:
        mine = session(hosting, SubmissionSession, user)
        raw = f"From: {author}\r\n\r\nHello\r\n".encode()
        message = await send(mine, raw, tmp_path, sender=reverse_path)
        expected = USER if author in GRANTED else None
        assert (author, await added_sender(database, message)) == (author, expected)


@pytest.mark.parametrize("reverse_path", [USER, ""])
async def test_nobody_writes_as_somebody_else(
    hosting: Hosting, database: Database, tmp_path: Path, reverse_path: str
) -> None:
    user = await user_with_addresses(database)
    mine = session(hosting, SubmissionSession, user)
    for author in FOREIGN:
        raw = f"Subject: x\r\nFrom: {author}\r\n\r\nHello\r\n".encode()
        refusal = await send(mine, raw, tmp_path, sender=reverse_path)
        assert (author, refusal) == (author, reply.AUTHOR_NOT_PERMITTED)
        assert await send(mine, raw, tmp_path, sender=reverse_path, memory=10) is reply.AUTHOR_NOT_PERMITTED
    assert await database.query("test.none", "SELECT FROM relaymail.message") == []


def test_the_refusal_names_what_is_refused() -> None:
    text = b"550 5.7.1 Sender not permitted for this login"
    assert reply.SENDER_NOT_PERMITTED.data == text + b" (MAIL FROM)\r\n"
    assert reply.AUTHOR_NOT_PERMITTED.data == text + b" (From header)\r\n"


async def test_a_message_that_names_no_author_is_left_alone(
    hosting: Hosting, database: Database, tmp_path: Path
) -> None:
    mine = session(hosting, SubmissionSession, await user_with_addresses(database))
    for raw in (
        b"Subject: x\r\n\r\nFrom: other@example.test\r\n",
        b"",
        b"no field\r\nFrom: other@example.test",
    ):
        assert await added_sender(database, await send(mine, raw, tmp_path)) == USER


async def test_a_sender_field_of_the_message_stays_the_only_one(
    hosting: Hosting, database: Database, tmp_path: Path
) -> None:
    mine = session(hosting, SubmissionSession, await user_with_addresses(database))
    raw = b"From: team@example.test\r\nSender: user@example.test\r\n\r\nHello\r\n"
    assert await added_sender(database, await send(mine, raw, tmp_path)) is None


async def test_an_address_that_a_user_before_had_is_not_taken_for_ones_own(
    hosting: Hosting, database: Database, tmp_path: Path
) -> None:
    """Both have it verified; mail for it goes to the other, so the login has to be named."""
    await add_user(database, "alias@example.test")
    user = await user_with_addresses(database)
    raw = b"From: alias@example.test\r\n\r\nHello\r\n"
    message = await send(session(hosting, SubmissionSession, user), raw, tmp_path)
    assert await added_sender(database, message) == USER


async def test_without_a_login_nothing_is_asked(hosting: Hosting, database: Database, tmp_path: Path) -> None:
    raw = b"From: other@example.test\r\n\r\nHello\r\n"
    for kind in (SubmissionSession, MXSession):
        message = await send(session(hosting, kind), raw, tmp_path, sender="whoever@wherever.example")
        assert await added_sender(database, message) is None


def far_down(author: str) -> bytes:
    """Behind more lines than are read for the columns."""
    return lines(*["X: y"] * 5000, f"From: {author}", "", "Hello")


def at_the_end_of_a_long_field(author: str) -> bytes:
    comment = f"({'x' * 70_000})"
    return lines(f"From: {USER} {comment}, {author}", "", "Hello")


def last_of_many(author: str) -> bytes:
    return lines("From: " + ",\r\n ".join([USER] * 2500), f" , {author}", "", "Hello")


def in_a_second_field_behind_a_long_subject(author: str) -> bytes:
    words = " ".join(["=?utf-8?q?x?="] * 2000)
    return lines(f"Subject: {words}", f"From: {USER}", f"From: {author}", "", "Hello")


def above_many_parts(author: str) -> bytes:
    head = lines(f"From: {author}", "Content-Type: multipart/mixed; boundary=b", "")
    return head + b"--b\r\n\r\nx\r\n" * 1500 + b"--b--\r\n"


@pytest.mark.parametrize(
    "hide",
    [
        far_down,
        at_the_end_of_a_long_field,
        last_of_many,
        in_a_second_field_behind_a_long_subject,
        above_many_parts,
    ],
)
@pytest.mark.parametrize("memory", [0, 1 << 24])
async def test_no_limit_of_the_reader_hides_an_author_or_refuses_one(
    hosting: Hosting, database: Database, tmp_path: Path, hide: object, memory: int
) -> None:
    assert callable(hide)
    mine = session(hosting, SubmissionSession, await user_with_addresses(database))
    refusal = await send(mine, hide("other@example.test"), tmp_path, memory=memory)
    assert refusal is reply.AUTHOR_NOT_PERMITTED
    stored = await send(mine, hide(USER), tmp_path, memory=memory)
    assert await added_sender(database, stored) is None
    ((status,),) = await database.query("test.status", "SELECT parse_status FROM relaymail.message")
    assert status.startswith("limited: ")


async def test_what_the_database_cannot_tell_is_temporary(
    hosting: Hosting, database: Database, tmp_path: Path
) -> None:
    mine = session(hosting, SubmissionSession, await user_with_addresses(database))
    await database.stop()
    assert await send(mine, b"From: user@example.test\r\n\r\n", tmp_path) in {
        reply.NOT_STORED,
        reply.TEMPORARY,
    }


@pytest.mark.parametrize(
    ("email", "ascii_only", "with_utf8"),
    [
        ("Ann@Example.Test", "Ann@Example.Test", "Ann@Example.Test"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("é@bücher.example", None, "é@bücher.example"),
        ("a..b@docomo.test", None, None),
        ("a b@example.test", None, None),
        ("ann@example.test\r\nBcc: x@y.test", None, None),
        ("ann", None, None),
        ("", None, None),
    ],
)
def test_only_a_valid_address_is_put_into_a_sender_field(
    email: str, ascii_only: str | None, with_utf8: str | None
) -> None:
    assert sender_field(email, utf8=False) == ascii_only
    assert sender_field(email, utf8=True) == with_utf8


async def test_an_internationalized_login_is_named_in_internationalized_mail_only(
    hosting: Hosting, database: Database, tmp_path: Path
) -> None:
    email = "ü@example.test"
    mine = session(hosting, SubmissionSession, await user_with_addresses(database, email), email)
    raw = b"From: team@example.test\r\n\r\nHello\r\n"
    assert await added_sender(database, await send(mine, raw, tmp_path)) is None
    message = await send(mine, raw, tmp_path, parameters={"SMTPUTF8": None})
    assert await added_sender(database, message) == email
