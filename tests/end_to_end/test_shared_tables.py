"""What the API, the web UI and the POP3 and IMAP hosts rely on in the tables they share with the host."""

from __future__ import annotations

import base64
import random
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.end_to_end.api import PATH, Api
from tests.end_to_end.conftest import API_KEY
from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message, new_message_id

NEWLINE, CRLF = "\n", "\r\n"

Row = tuple[str, str | None, str, UUID | None]


def column(host: Host, email: UUID, name: str) -> Any:
    """A column of a row of ``Emails``."""
    return host.row(f'SELECT "{name}" FROM public."Emails" WHERE "Id" = %s', email)[0]


def recipients(host: Host, email: UUID) -> list[Row]:
    """The recipient rows of a row of ``Emails``: type, name, address and user; none of them read yet."""
    rows = host.rows(
        'SELECT "Type", "DisplayName", "Address", "UserId", "IsRead" FROM public."EmailRecipients"'
        ' WHERE "EmailId" = %s ORDER BY "Type" DESC, "Address"',
        email,
    )
    assert not any(row[-1] for row in rows)
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def attachments(host: Host, email: UUID) -> list[tuple[str, str, bytes]]:
    """Name, type and content of the attachments, by name."""
    rows = host.rows(
        'SELECT "FileName", "ContentType", "Content", "SizeBytes" FROM public."EmailAttachments"'
        ' WHERE "EmailId" = %s ORDER BY "FileName"',
        email,
    )
    assert all(size == len(content) for _, _, content, size in rows)
    return [(name, kind, bytes(content)) for name, kind, content, _ in rows]


def test_ids_are_random_so_that_the_imap_hosts_uids_do_not_collide(host: Host, demo: User) -> None:
    emails = [host.email(host.deliver(message(), demo.address)) for _ in range(20)]
    assert {(email.version, email.variant) for email in emails} == {(4, "specified in RFC 4122")}
    assert len({email.bytes[:4] for email in emails}) == 20


def test_the_columns_of_a_plain_message(host: Host, demo: User) -> None:
    before = datetime.now(UTC)
    raw = message(
        "To: Demo User <demo@example.test>",
        "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
        "In-Reply-To: <first@example.org>",
        "References: <zeroth@example.org> <first@example.org>",
        sender='"A Friend" <Friend@Example.org>',
        message_id="plain.1@client.test",
        body="Hello\r\nworld\r\n",
    )
    email = host.email(host.deliver(raw, demo.address))
    (row,) = host.rows(
        'SELECT "MessageId", "FromAddress", "FromDisplayName", "Subject", "TextBody", "HtmlBody",'
        ' "SizeBytes", "InReplyTo", "References", "ThreadId", "SentByUserId", "ReceivedAt"'
        ' FROM public."Emails" WHERE "Id" = %s',
        email,
    )
    assert row[:-1] == (
        "plain.1@client.test",
        "Friend@Example.org",
        "A Friend",
        "Grüße",
        row[4],
        None,
        len(raw),
        "first@example.org",
        "<zeroth@example.org> <first@example.org>",
        email,
        None,
    )
    assert row[4].splitlines() == ["Hello", "world"]
    assert before - timedelta(seconds=5) < row[-1] < datetime.now(UTC) + timedelta(seconds=5)
    assert recipients(host, email) == [("To", "Demo User", "demo@example.test", demo.id)]


def test_missing_message_id_and_subject_are_made_up(host: Host, demo: User) -> None:
    message_id = host.deliver(b"From: friend@example.org\r\n\r\nHello\r\n", demo.address)
    email = host.email(message_id)
    assert column(host, email, "Subject") == "(No Subject)"
    made_up = column(host, email, "MessageId")
    assert made_up.endswith("@relaymail.example.test")
    assert not set("<> ") & set(made_up)
    assert host.row("SELECT message_id FROM relaymail.message WHERE id = %s", UUID(message_id)) == (made_up,)


@pytest.mark.parametrize("value", ["", "<>", "no brackets, no at", "<a@b> <c@d>", "<" + "x" * 600 + "@y>"])
def test_no_message_id_can_break_a_reader(host: Host, demo: User, value: str) -> None:
    raw = f"From: friend@example.org\r\nMessage-ID: {value}\r\n\r\nHello\r\n".encode()
    found = column(host, host.email(host.deliver(raw, demo.address)), "MessageId")
    assert 0 < len(found) <= 500
    assert not set("<> ") & set(found)


@pytest.mark.parametrize(
    "given", ["", "rubbish", "application/", "a/b/c; x", "application/x-thing", "IMAGE/PNG; name=a.png"]
)
def test_content_types_can_be_parsed(host: Host, demo: User, given: str) -> None:
    raw = message(
        'Content-Type: multipart/mixed; boundary="b"',
        body="--b\r\n\r\ntext\r\n--b\r\n"
        f"Content-Type: {given}\r\nContent-Disposition: attachment\r\n\r\ndata\r\n--b--\r\n",
    )
    ((_, kind, content),) = attachments(host, host.email(host.deliver(raw, demo.address)))
    first, slash, second = kind.partition("/")
    assert first, slash
    assert second
    assert not set('/; "<>') & set(first + second)
    assert content == b"data"


def test_two_addresses_of_one_user_are_one_row(host: Host) -> None:
    user = host.user()
    extra = host.address(user, f"extra.{user.address}")
    raw = message(f"To: {user.address}", f"Cc: {extra}, {extra.upper()}")
    (email,) = host.emails(host.deliver(raw, user.address, extra))
    assert recipients(host, email) == [("To", None, user.address, user.id)]


def test_bcc_rows_are_for_their_own_eyes(host: Host, demo: User) -> None:
    to, cc, one, two = (host.user(name) for name in ("to", "cc", "one", "two"))
    raw = message(f"To: {to.address}, x@elsewhere.example", f"Cc: {cc.address}", sender=demo.address)
    with host.submission(demo) as wire:
        everyone = [user.address for user in (to, cc, one, two)]
        message_id = wire.message(raw, demo.address, *everyone).id
    shared, *own = host.emails(message_id)
    assert column(host, shared, "SentByUserId") == demo.id
    assert recipients(host, shared) == [
        ("To", None, to.address, to.id),
        ("To", None, "x@elsewhere.example", None),
        ("Cc", None, cc.address, cc.id),
    ]
    assert [recipients(host, email) for email in own] == [
        [("Bcc", None, one.address, one.id)],
        [("Bcc", None, two.address, two.id)],
    ]
    assert {column(host, email, "SentByUserId") for email in own} == {None}
    # The whole envelope stays in our own schema
    assert host.rows(
        "SELECT address, user_id FROM relaymail.envelope_recipient WHERE message_id = %s ORDER BY n",
        UUID(message_id),
    ) == [(user.address, user.id) for user in (to, cc, one, two)]


def test_bcc_over_the_mx_is_as_private(host: Host) -> None:
    to, hidden, other = host.user("to"), host.user("hidden"), host.user("other")
    message_id = host.deliver(message(f"To: {to.address}"), to.address, hidden.address, other.address)
    assert sorted(map(sorted, host.readers(message_id).values())) == sorted(
        [user.id] for user in (to, hidden, other)
    )


def test_a_bcc_header_is_not_shown_to_anyone(host: Host, demo: User) -> None:
    to, hidden = host.user("to"), host.user("hidden")
    raw = message(f"To: {to.address}", f"Bcc: {hidden.address}", sender=demo.address)
    message_id = host.submit(raw, demo, to.address, hidden.address)
    shared, own = host.emails(message_id)
    assert recipients(host, shared) == [("To", None, to.address, to.id)]
    assert recipients(host, own) == [("Bcc", None, hidden.address, hidden.id)]


def test_a_sender_who_writes_to_themselves_has_one_row(host: Host, demo: User) -> None:
    raw = message(f"To: {demo.address}", sender=demo.address)
    (email,) = host.emails(host.submit(raw, demo, demo.address))
    assert column(host, email, "SentByUserId") == demo.id
    assert recipients(host, email) == [("To", None, demo.address, demo.id)]


def test_an_answer_joins_the_thread_of_the_same_users_only(host: Host) -> None:
    anna, berta, carla = host.user("anna"), host.user("berta"), host.user("carla")
    first_id = new_message_id()
    raw = message(f"To: {berta.address}", message_id=first_id, sender=anna.address)
    first = host.email(host.submit(raw, anna, berta.address))
    assert column(host, first, "ThreadId") == first

    def answer(*to: User, sender: User | None = None) -> UUID:
        author = sender.address if sender else "friend@example.org"
        fields = (f"To: {', '.join(user.address for user in to)}", f"In-Reply-To: <{first_id}>")
        raw = message(*fields, sender=author)
        addresses = [user.address for user in to]
        return host.email(host.submit(raw, sender, *addresses) if sender else host.deliver(raw, *addresses))

    assert column(host, answer(anna, sender=berta), "ThreadId") == first
    assert column(host, answer(berta), "ThreadId") == first
    stranger = answer(carla)
    assert column(host, stranger, "ThreadId") == stranger


def test_the_archive_outlives_what_the_api_deletes(host: Host, demo: User) -> None:
    raw = message("Subject: To be deleted")
    message_id = host.deliver(raw, demo.address)
    host.rows('DELETE FROM public."Emails" WHERE "Id" = %s', host.email(message_id))
    assert host.export(message_id) == raw
    host.cli("message", "show", message_id, "--json")


def test_attached_messages_and_inline_parts_are_attachments(host: Host, demo: User) -> None:
    attached = b"From: someone@example.org\r\nSubject: Inside\r\n\r\nThe inner text\r\n"
    raw = b"\r\n".join(
        [
            *message('Content-Type: multipart/mixed; boundary="b"', body="").splitlines(),
            b"--b",
            b"Content-Type: text/html",
            b"",
            b"<p>Hello <img src=cid:logo></p>",
            b"--b",
            b"Content-Type: image/png",
            b"Content-ID: <logo>",
            b"Content-Disposition: inline; filename*=utf-8''b%C3%BCld.png",
            b"Content-Transfer-Encoding: base64",
            b"",
            b"iVBORw0KGgo=",
            b"--b",
            b"Content-Type: message/rfc822",
            b"",
            attached.rstrip(b"\r\n"),
            b"--b--",
            b"",
        ]
    )
    email = host.email(host.deliver(raw, demo.address))
    assert attachments(host, email) == [
        ("büld.png", "image/png", b"\x89PNG\r\n\x1a\n"),
        ("message.eml", "message/rfc822", attached.rstrip(b"\r\n")),
    ]
    assert column(host, email, "HtmlBody").strip() == "<p>Hello <img src=cid:logo></p>"


def test_what_does_not_fit_a_column_is_cut_there_and_whole_in_the_archive(host: Host, demo: User) -> None:
    folded = "\r\n ".join(["ü" * 100] * 15 + ["x" * 100] * 700)  # more than 64 KiB
    references = " ".join(f"<{n:0100}@example.org>" for n in range(100))
    raw = message(
        f"Subject: {folded}",
        "References: " + references.replace(" ", "\r\n "),
        "To: " + "x" * 400 + f"@example.org, {demo.address}",
        sender="N" * 900 + " <friend@example.org>",
        body="A NUL: \0 and \ud800 half a character\r\n".replace("\ud800", "?"),
    ).replace(b"?", b"\xed\xa0\x80")
    message_id = host.deliver(raw, demo.address)
    assert host.export(message_id) == raw
    email = host.email(message_id)
    subject = column(host, email, "Subject")
    assert (len(subject), set(subject)) == (1000, {"ü", " "})
    kept = column(host, email, "References")
    assert len(kept) <= 2000
    assert set(kept.split()) <= set(references.split())
    assert column(host, email, "FromDisplayName") == "N" * 500
    assert "A NUL: \ufffd and" in column(host, email, "TextBody")
    assert [row[3] for row in recipients(host, email)] == [demo.id]


def test_the_notification_is_exactly_what_the_api_takes(host: Host, api: Api) -> None:
    anna, berta = host.user("anna"), host.user("berta")
    raw = message(
        f"To: {anna.address}, {berta.address}, {anna.address}",
        "Subject: Told",
        'Content-Type: multipart/mixed; boundary="b"',
        sender="A Friend <friend@example.org>",
        body="--b\r\n\r\nHello\r\n--b\r\nContent-Type: image/png\r\n\r\ndata\r\n--b--\r\n",
    )
    email = host.email(host.deliver(raw, anna.address, berta.address))
    body = api.until_told(str(email))
    received = column(host, email, "ReceivedAt")
    assert datetime.fromisoformat(body["email"].pop("receivedAt")) == received
    assert sorted(body.pop("userIds")) == sorted([str(anna.id), str(berta.id)])
    assert body == {
        "email": {
            "id": str(email),
            "from": "friend@example.org",
            "fromDisplay": "A Friend",
            "subject": "Told",
            "hasAttachments": True,
        }
    }
    (request,) = [one for one in api.requests if one.body["email"]["id"] == str(email)]
    assert (request.method, request.path) == ("POST", PATH)
    assert request.authorization == f"ApiKey {API_KEY}"
    assert request.content_type is not None
    assert request.content_type.startswith("application/json")


def test_there_is_a_notification_for_each_row_with_users_and_for_no_other(
    host: Host, api: Api, demo: User
) -> None:
    to, hidden = host.user("to"), host.user("hidden")
    with host.submission(demo) as wire:
        raw = message(f"To: {to.address}", sender=demo.address)
        shared, own = host.emails(wire.message(raw, demo.address, to.address, hidden.address).id)
    unowned = host.email(host.deliver(message("To: postmaster@example.test"), "postmaster"))
    assert api.until_told(str(shared))["userIds"] == [str(to.id)]
    assert api.until_told(str(own))["userIds"] == [str(hidden.id)]
    # Later mail has been notified: what has not come by now does not come
    later = host.email(host.deliver(message(f"To: {to.address}"), to.address))
    api.until_told(str(later))
    assert api.told(str(unowned)) == []
    assert host.rows("SELECT FROM relaymail.outbox WHERE email_id = %s", unowned) == []


@pytest.mark.parametrize(("size", "count"), [(100_000, 60), (3_000_000, 10)])
def test_the_content_of_a_message_to_many_users_is_in_memory_once(host: Host, size: int, count: int) -> None:
    content = random.Random(size).randbytes(size)
    text = textwrap.fill("All of you, read this. " * (size // 40)).replace(NEWLINE, CRLF)
    users = [host.user("many") for _ in range(count)]
    raw = message(
        "In-Reply-To: <nothing@example.org>",
        'Content-Type: multipart/mixed; boundary="b"',
        body=f"--b\r\n\r\n{text}\r\n--b\r\n"
        "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        f"{base64.encodebytes(content).decode().replace(NEWLINE, CRLF)}--b--\r\n",
    )
    before = host.memory()
    host.forget_peak()
    message_id = host.deliver(raw, *(user.address for user in users))
    assert host.peak_memory() - before < 60 * 1024 * 1024 + len(raw)
    emails = host.emails(message_id)
    assert len(emails) == count
    assert host.row(
        'SELECT count(*), count(DISTINCT "Id"), count(DISTINCT "EmailId") FROM public."EmailAttachments"'
        ' WHERE "EmailId" = ANY(%s) AND "Content" = %s',
        emails,
        content,
    ) == (count, count, count)
    assert host.row(
        'SELECT count(*), count(DISTINCT "TextBody"), count(DISTINCT "ThreadId"), min(length("TextBody"))'
        ' FROM public."Emails" WHERE "Id" = ANY(%s)',
        emails,
    ) == (count, 1, count, len(text))
