"""What must hold of stored mail, notifications, the queue and accounts, in a real database."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from relaymail.doctor import Severity
from relaymail.store.database import Database
from tests.doctor.conftest import Installation, failed_with, is_well

ALL = (
    "check.mail.recipients",
    "check.mail.mailboxes",
    "check.mail.outbox-dead",
    "check.mail.outbox-leases",
    "check.mail.outbox-due",
    "check.queue.leases",
    "check.queue.due",
    "check.queue.blocked",
    "check.accounts.addresses",
)


@pytest.fixture
def stored(
    installation: Installation, database: Database, database_parameters: dict[str, str]
) -> Installation:
    installation.database(database_parameters)
    return installation


async def add_message(database: Database, *, recipients: int = 1, parts: int = 1) -> UUID:
    message = uuid4()
    await database.execute(
        "test.message",
        """INSERT INTO relaymail.message (id, received_at, listener, session_id, client_address, client_name,
           reverse_path, size_bytes, sha256, trace_headers, message_id, from_address, subject, parse_status,
           email_ids)
           VALUES (%s, now(), 'mx', 's', '192.0.2.1', 'c', '', 1, '', '', 'm', 'a@b', 's', 'complete',
           '{}')""",
        (message,),
    )
    for n in range(recipients):
        await database.execute(
            "test.recipient",
            "INSERT INTO relaymail.envelope_recipient (message_id, n, address) VALUES (%s, %s, 'a@b')",
            (message, n),
        )
    for n in range(parts):
        await database.execute(
            "test.part", "INSERT INTO relaymail.message_part VALUES (%s, %s, 'x')", (message, n)
        )
    return message


async def add_user(database: Database, email: str) -> UUID:
    user = uuid4()
    await database.execute(
        "test.user",
        'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt") '
        "VALUES (%s, %s, 'test', %s, now())",
        (user, str(user), email),
    )
    return user


async def notify(database: Database, state: str, due: str, lease: str | None = None) -> None:
    await database.execute(
        "test.outbox",
        "INSERT INTO relaymail.outbox (message_id, email_id, payload, state, last_error, due_at, "
        "lease_until) VALUES (%s, %s, '{}', %s, 'HTTP 404', now() + %s::interval, now() + %s::interval)",
        (uuid4(), uuid4(), state, due, lease),
    )


async def queue(
    database: Database,
    due: str,
    *,
    leased: bool = False,
    state: str = "queued",
    owed: str | None = None,
    destination: str = "example.net",
) -> None:
    message = await add_message(database)
    await database.execute(
        "test.queue",
        "INSERT INTO relaymail.queue (message_id, n, recipient, destination, state, due_at, lease_token, "
        "owed_dsn, finished_at, queued_at) "
        "VALUES (%s, 0, 'a@example.net', %s, %s, now() + %s::interval, %s, %s, now() + %s::interval, "
        "now() - interval '3 days')",
        (message, destination, state, due, uuid4() if leased else None, owed, due if owed else None),
    )


async def test_a_database_in_which_all_holds(stored: Installation, database: Database) -> None:
    await add_message(database)
    await add_user(database, "anna@example.test")
    await notify(database, "pending", "1 hour")
    await notify(database, "sent", "-5 days")
    await notify(database, "pending", "-1 hour", "1 minute")
    await queue(database, "-1 minute")
    await queue(database, "5 minutes", leased=True)
    await queue(database, "-3 days", state="delivered")
    await queue(database, "-3 days", state="held")
    outcomes = await stored.run(*ALL)
    assert [outcome.finding for outcome in outcomes if not is_well(outcome)] == []


async def test_messages_for_nobody(stored: Installation, database: Database) -> None:
    lost = await add_message(database, recipients=0)
    empty = await add_message(database, parts=0)
    outcome = await stored.look("check.mail.recipients")
    assert failed_with(
        outcome, Severity.ERROR, "1 accepted messages have no recipient, 1 no bytes", str(lost), str(empty)
    )


async def test_a_message_twice_in_a_mailbox(stored: Installation, database: Database) -> None:
    user, email = await add_user(database, "anna@example.test"), uuid4()
    await database.execute(
        "test.email",
        'INSERT INTO public."Emails" ("Id", "MessageId", "FromAddress", "Subject", "ReceivedAt", '
        '"SizeBytes") '
        "VALUES (%s, 'm', 'a@b', 's', now(), 1)",
        (email,),
    )
    for owner in (user, user, None, None):
        await database.execute(
            "test.email_recipient",
            'INSERT INTO public."EmailRecipients" ("Id", "EmailId", "Address", "Type", "UserId", "IsRead") '
            "VALUES (%s, %s, 'a@b', 'To', %s, false)",
            (uuid4(), email, owner),
        )
    outcome = await stored.look("check.mail.mailboxes")
    assert failed_with(outcome, Severity.ERROR, "1 messages are in somebody's mailbox twice", str(email))


async def test_notifications_that_were_given_up(stored: Installation, database: Database) -> None:
    await notify(database, "dead", "-1 hour")
    outcome = await stored.look("check.mail.outbox-dead")
    assert failed_with(outcome, Severity.WARN, "1 notification was given up", "HTTP 404")


async def test_notifications_in_an_ended_claim(stored: Installation, database: Database) -> None:
    await notify(database, "pending", "-2 hours", "-1 hour")
    leases, due = await stored.run("check.mail.outbox-leases", "check.mail.outbox-due")
    assert failed_with(
        leases, Severity.WARN, "1 notifications were claimed by a host that is gone", "60 minutes"
    )
    assert failed_with(due, Severity.WARN, "due for more than 15 minutes", "120 minutes")


async def test_deliveries_in_an_ended_claim(stored: Installation, database: Database) -> None:
    await queue(database, "-1 hour", leased=True)
    outcome = await stored.look("check.queue.leases")
    assert failed_with(outcome, Severity.ERROR, "1 deliveries were claimed", "60 minutes ago")


async def test_mail_that_is_due_and_not_sent(stored: Installation, database: Database) -> None:
    await queue(database, "-1 hour")
    outcome = await stored.look("check.queue.due")
    assert failed_with(
        outcome, Severity.ERROR, "Mail in the queue is not sent", "the oldest for 60", "sends none"
    )
    stored.set(Smtp__ServerName="mail.example.test")
    assert "sends none" not in repr((await stored.look("check.queue.due")).finding)


async def test_a_report_that_is_owed(stored: Installation, database: Database) -> None:
    await queue(database, "-2 hours", state="failed", owed="failed")
    outcome = await stored.look("check.queue.due")
    assert failed_with(outcome, Severity.ERROR, "Reports to senders are not made", "2.0 hours")


async def test_destinations_that_are_away(stored: Installation, database: Database) -> None:
    async def block(destination: str) -> None:
        await database.execute(
            "test.block",
            "INSERT INTO relaymail.blocked (destination, failures, since, blocked_until, reason) "
            "VALUES (%s, 5, now() - interval '2 hours', now() + interval '1 hour', 'timed out')",
            (destination,),
        )

    await block("example.net")
    await queue(database, "-1 hour")
    blocked, due = await stored.run("check.queue.blocked", "check.queue.due")
    assert failed_with(blocked, Severity.INFO, "1 destination has not been reached", "example.net: timed out")
    assert is_well(due), "mail for it does not wait for us"
    for n in range(4):
        await block(f"{n}.example.net")
    assert failed_with(await stored.look("check.queue.blocked"), Severity.WARN, "5 destinations have not")


async def test_an_address_of_two_users(stored: Installation, database: Database) -> None:
    await add_user(database, "Anna@example.test")
    second = await add_user(database, "ben@example.test")
    assert is_well(await stored.look("check.accounts.addresses"))
    for verified in (False, True):
        await database.execute(
            "test.address",
            'INSERT INTO public."UserEmailAddresses" ("Id", "UserId", "Address", "IsVerified", "AddedAt") '
            "VALUES (%s, %s, %s, %s, now())",
            (uuid4(), second, "anna@EXAMPLE.test" if verified else "anna@example.test", verified),
        )
        outcome = await stored.look("check.accounts.addresses")
        assert is_well(outcome) is not verified
    assert failed_with(outcome, Severity.WARN, "1 address belongs to more than one user", "anna@example.test")


async def test_postmaster(stored: Installation, database: Database) -> None:
    check = "check.accounts.postmaster"
    stored.hosted("example.test", "example.net")
    outcome = await stored.look(check)
    assert failed_with(outcome, Severity.WARN, "is not set", "no user has postmaster@example.net")
    stored.set(Smtp__Postmaster="anna@example.test")
    assert failed_with(await stored.look(check), Severity.WARN, "an address that no user has")
    await add_user(database, "Anna@example.test")
    assert is_well(await stored.look(check))
    stored.set(Smtp__Postmaster="")
    await add_user(database, "postmaster@example.test")
    assert failed_with(await stored.look(check), Severity.WARN, "postmaster@example.net")
    await add_user(database, "postmaster@example.net")
    assert is_well(await stored.look(check))
