"""What a submitted message is given and what is taken from it, and that the bytes received are kept."""

from __future__ import annotations

import email
import email.policy
from email.utils import parsedate_to_datetime
from uuid import UUID

from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message
from tests.support.polling import until


def test_hidden_recipients_and_bare_newlines_stay_in_the_archive(host: Host, demo: User) -> None:
    to, hidden = host.user("to"), host.user("hidden")
    raw = (
        f"From: {demo.address}\nTo: {to.address}\nBcc: {hidden.address},\n\tfriend@example.org\n"
        "Subject: Lunch\n\nOne\n.\rTwo\n\r\n"
    ).encode()
    message_id = host.submit(raw, demo, to.address, hidden.address)
    assert host.export(message_id) == raw

    delivered = host.cli("message", "export", message_id, "--delivered")
    assert delivered.count(b"\n") == delivered.count(b"\r") == delivered.count(b"\r\n")
    assert hidden.address.encode() not in delivered
    assert b"friend@example.org" not in delivered
    rest = f"From: {demo.address}\r\nTo: {to.address}\r\nSubject: Lunch\r\n\r\nOne\r\n.\r\nTwo\r\n\r\n"
    assert delivered.endswith(b"\r\n" + rest.encode())
    read = email.message_from_bytes(delivered, policy=email.policy.default)
    assert list(read) == ["Received", "Message-ID", "Date", "From", "To", "Subject"]
    assert message_id in read["Received"]
    stored_id, received_at = host.row(
        "SELECT message_id, received_at FROM relaymail.message WHERE id = %s", UUID(message_id)
    )
    assert read["Message-ID"] == f"<{stored_id}>"
    assert parsedate_to_datetime(str(read["Date"])) == received_at.replace(microsecond=0)
    assert host.rows(
        'SELECT DISTINCT "MessageId" FROM public."Emails" WHERE "Id" = ANY(%s)', host.emails(message_id)
    ) == [(stored_id,)]

    # No column that a user sees knows of the hidden one, but for their own row
    shared, own = host.emails(message_id)
    assert host.readers(message_id) == {shared: {to.id}, own: {hidden.id}}
    for (columns,) in host.rows(
        'SELECT e::text || r::text FROM public."Emails" e'
        ' JOIN public."EmailRecipients" r ON r."EmailId" = e."Id" WHERE e."Id" = %s',
        shared,
    ):
        assert hidden.address not in columns
        assert "friend@example.org" not in columns


def test_the_login_is_named_beside_a_granted_author_for_good(host: Host, demo: User) -> None:
    user, team = host.user(), host.user("team")
    host.cli("user", "grant", "add", user.address, team.address)
    granted = host.submit(message(sender=team.address), user, demo.address)
    own = host.submit(message(sender=user.address), user, demo.address)
    host.cli("user", "grant", "remove", user.address, team.address)
    with host.submission(user) as wire:
        refused = (550, ("5.7.1 Sender not permitted for this login (From header)",))
        # What a login may send as is believed for a second
        until(lambda: wire.message(message(sender=team.address), user.address, demo.address) == refused)
        # The session is none the worse
        assert wire.message(message(sender=user.address), user.address, demo.address).code == 250
    for message_id, expected in ((granted, user.address), (own, None)):
        delivered = host.cli("message", "export", message_id, "--delivered")
        assert email.message_from_bytes(delivered)["Sender"] == expected


def test_mail_of_other_hosts_is_delivered_as_it_came(host: Host, demo: User) -> None:
    raw = message("Bcc: someone@example.org", "Subject: Hello")
    message_id = host.deliver(raw, demo.address)
    delivered = host.cli("message", "export", message_id, "--delivered")
    assert delivered.endswith(raw)
    assert delivered.startswith(
        b"Return-Path: <friend@example.org>\r\nReceived: from client.test ([127.0.0.1])\r\n"
    )


def test_a_held_message_appears_when_its_time_has_come(host: Host, demo: User) -> None:
    user = host.user("later")
    raw = message(f"To: {user.address}", sender=demo.address)
    with host.submission(demo) as wire:
        assert wire.command(f"MAIL FROM:<{demo.address}> HOLDFOR=2").code == 250
        assert wire.command(f"RCPT TO:<{user.address}>").code == 250
        message_id = wire.data(raw).id
    assert host.export(message_id) == raw
    assert host.emails(message_id) == []
    until(lambda: bool(host.emails(message_id)))
    assert host.readers(message_id) == {host.email(message_id): {user.id}}
