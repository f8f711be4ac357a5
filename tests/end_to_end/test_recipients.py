"""The envelope says who gets a message; nothing in the message does."""

from __future__ import annotations

import smtplib
from uuid import UUID

import pytest

from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message
from tests.end_to_end.wire import Wire


def seen_by(host: Host, message_id: str) -> set[UUID]:
    """All users who have a message in a mailbox."""
    return set().union(*host.readers(message_id).values())


def test_mail_that_names_nobody_reaches_exactly_the_envelope(host: Host) -> None:
    anna, berta, other = host.user("anna"), host.user("berta"), host.user("other")
    message_id = host.deliver(message("Subject: Bcc only"), anna.address, berta.address)
    assert seen_by(host, message_id) == {anna.id, berta.id}
    assert other.id not in seen_by(host, message_id)


def test_list_mail_reaches_the_envelope_and_not_the_list_address(host: Host) -> None:
    anna = host.user("anna")
    raw = message("To: The list <list@lists.example>", "List-Id: <list.lists.example>")
    message_id = host.deliver(raw, anna.address, sender="list-bounces@lists.example")
    assert seen_by(host, message_id) == {anna.id}


def test_a_forged_to_reaches_nobody(host: Host, demo: User) -> None:
    victim = host.user("victim")
    extra = host.address(victim, f"extra.{victim.address}")
    named = (f"To: {victim.address}, {victim.address.upper()}, {extra}", f"Cc: {victim.address}")
    raw = message(*named, sender=demo.address)
    for message_id in (host.deliver(raw, demo.address), host.submit(raw, demo, demo.address)):
        assert victim.id not in seen_by(host, message_id)
        # The API gives rows without a user to whoever has the address: there must be none of the victim's
        claimable = host.rows(
            'SELECT "Address" FROM public."EmailRecipients" WHERE "EmailId" = ANY(%s) AND "UserId" IS NULL',
            host.emails(message_id),
        )
        assert claimable == []


def test_an_unverified_address_owns_nothing(host: Host) -> None:
    thief = host.user("thief")
    wanted = host.address(thief, f"wanted.{thief.address}", verified=False)
    with host.mx() as wire:
        assert wire.envelope("friend@example.org", wanted)[-1].start == "550 5.1.1"


def test_an_unverified_address_takes_over_nobodys_mail(host: Host) -> None:
    thief, owner = host.user("thief"), host.user("owner")
    host.address(thief, owner.address, verified=False)
    assert seen_by(host, host.deliver(message(), owner.address)) == {owner.id}
    with host.submission(thief) as wire:
        assert wire.command(f"MAIL FROM:<{owner.address}>").start == "550 5.7.1"


def test_a_verified_address_is_an_own_one(host: Host) -> None:
    user = host.user()
    extra = host.address(user, f"Extra.{user.address}".title())
    assert seen_by(host, host.deliver(message(), extra.lower())) == {user.id}
    with host.submission(user) as wire:
        assert wire.command(f"MAIL FROM:<{extra.upper()}>").start == "250 2.1.0"


def test_a_verified_address_of_another_domain_is_local_on_submission_only(host: Host, demo: User) -> None:
    user = host.user()
    extra = host.address(user, f"{user.address.partition('@')[0]}@elsewhere.example")
    assert seen_by(host, host.submit(message(sender=demo.address), demo, extra)) == {user.id}
    with host.mx() as wire:
        assert wire.envelope("friend@example.org", extra)[-1].start == "550 5.7.1"


def test_relay_denied_and_unknown_user_are_told_apart(host: Host, demo: User) -> None:
    with host.mx() as wire:
        wire.command("MAIL FROM:<friend@example.org>")
        assert wire.command("RCPT TO:<nobody@example.test>").start == "550 5.1.1"
        assert wire.command("RCPT TO:<nobody@elsewhere.example>").start == "550 5.7.1"
        assert wire.command("RCPT TO:<nobody@sub.example.test>").start == "550 5.7.1"
    with host.submission(demo) as wire:
        wire.command(f"MAIL FROM:<{demo.address}>")
        assert wire.command("RCPT TO:<nobody@example.test>").start == "550 5.1.1"
        assert wire.command("RCPT TO:<somebody@elsewhere.example>").start == "250 2.1.5"


@pytest.mark.parametrize(
    "path",
    [
        "demo%elsewhere.example@example.test",
        "elsewhere.example!demo@example.test",
        '"demo@elsewhere.example"@example.test',
        "demo@elsewhere.example@example.test",
        "demo@example.test.elsewhere.example",
    ],
)
def test_no_spelling_of_an_address_relays(host: Host, path: str) -> None:
    with host.mx() as wire:
        assert wire.envelope("friend@example.org", path)[-1].code in {501, 550}


def test_a_source_route_is_dropped(host: Host, demo: User) -> None:
    message_id = host.deliver(message(), f"@elsewhere.example:{demo.address}")
    assert seen_by(host, message_id) == {demo.id}


@pytest.mark.parametrize("path", ["postmaster", "Postmaster@example.test", "POSTMASTER@EXAMPLE.TEST"])
def test_postmaster_is_always_taken(host: Host, path: str) -> None:
    message_id = host.deliver(message("Subject: For the postmaster"), path)
    assert seen_by(host, message_id) == set()
    (address,) = host.row(
        "SELECT address FROM relaymail.envelope_recipient WHERE message_id = %s", UUID(message_id)
    )
    assert address.lower() == "postmaster@example.test"


def test_the_null_sender_is_taken(host: Host, demo: User) -> None:
    with host.mx() as wire:
        message_id = wire.message(message("Subject: A bounce"), "", demo.address).id
    assert host.row("SELECT reverse_path FROM relaymail.message WHERE id = %s", UUID(message_id)) == ("",)
    assert seen_by(host, message_id) == {demo.id}
    with host.submission(demo) as wire:
        receipt = message("Subject: A receipt", sender=demo.address)
        assert wire.message(receipt, "", demo.address).code == 250


def test_refused_recipients_do_not_keep_the_message_from_the_others(host: Host, demo: User) -> None:
    with smtplib.SMTP("localhost", host.ports.mx, timeout=120) as client:
        refused = client.sendmail("friend@example.org", ["nobody@example.test", demo.address], message())
    assert refused == {"nobody@example.test": (550, b"5.1.1 No such mailbox")}


def test_the_same_recipient_twice_is_one(host: Host) -> None:
    user = host.user()
    message_id = host.deliver(message(), user.address, user.address.upper(), user.address)
    assert host.rows(
        "SELECT user_id FROM relaymail.envelope_recipient WHERE message_id = %s", UUID(message_id)
    ) == [(user.id,)]
    assert [len(readers) for readers in host.readers(message_id).values()] == [1]


def test_a_user_who_is_deleted_between_rcpt_and_data_costs_nobody_the_message(host: Host) -> None:
    gone, stays = host.user("gone"), host.user("stays")
    with host.mx() as wire:
        wire.envelope("friend@example.org", gone.address, stays.address)
        host.rows('DELETE FROM public."Users" WHERE "Id" = %s', gone.id)
        message_id = wire.data(message()).id
    assert seen_by(host, message_id) == {stays.id}


def test_an_open_submission_port_relays_nothing(
    new_host: MakeHost, database_parameters: dict[str, str]
) -> None:
    host = new_host({"Smtp__RequireAuthentication": "false"}, database=database_parameters)
    host.start()
    user = host.user()
    with Wire(host.ports.submission) as wire:
        wire.hello()
        assert wire.command("MAIL FROM:<anyone@elsewhere.example>").code == 250
        assert wire.command("RCPT TO:<nobody@elsewhere.example>").start == "550 5.7.1"
        assert wire.command(f"RCPT TO:<{user.address}>").code == 250
        assert seen_by(host, wire.data(message()).id) == {user.id}
