"""What is stored is what was received, to the byte."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest

from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message, new_message_id

KIB, MIB = 1024, 1024 * 1024


def attachments(contents: list[bytes], *head: bytes) -> bytes:
    """A multipart message with these attachments, each in base64."""
    lines = [
        *head,
        b"MIME-Version: 1.0",
        b'Content-Type: multipart/mixed; boundary="=_x"',
        b"",
        b"--=_x",
        b"Content-Type: text/plain",
        b"",
        b"See the attachments",
    ]
    for n, content in enumerate(contents):
        lines += [
            b"--=_x",
            b'Content-Type: application/octet-stream; name="part %d.bin"' % n,
            b"Content-Transfer-Encoding: base64",
            b"Content-Disposition: attachment",
            b"",
            base64.encodebytes(content).rstrip().replace(b"\n", b"\r\n"),
        ]
    return b"\r\n".join([*lines, b"--=_x--", b""])


def head(subject: bytes, sender: str = "friend@example.org") -> list[bytes]:
    """Header fields with a Message-ID of their own."""
    return [
        b"From: " + sender.encode(),
        b"Subject: " + subject,
        b"Message-ID: <" + new_message_id().encode() + b">",
    ]


def everything(sender: str = "friend@example.org") -> bytes:
    """8-bit, long lines, dots, NULs, broken MIME and 20 attachments, in one message."""
    noise = random.Random(1)
    contents = [noise.randbytes(1000 + 37 * n) for n in range(20)]
    fields = head("Grüße \udcff".encode("utf-8", "surrogateescape"), sender)
    whole = attachments(contents, *fields, b"Broken header")
    odd = [
        b"--=_x",
        b'Content-Type: text/plain; charset="no such"; x=\xff\xfe',
        b"Content-Transfer-Encoding: unheard-of",
        b"",
        b".",
        b"..",
        b".. two dots",
        b"\0 a NUL and \x80\xff\xfe bytes that are no text",
        b"x" * (64 * KIB),
        b"." * (64 * KIB),
        b"--=_y never opened",
        b"--=_x",
        b"Content-Type: multipart/mixed",
        b"",
        b"\t",
    ]
    return whole + b"\r\n".join([*odd, b""])


def test_everything_odd_comes_back_over_the_mx(host: Host, demo: User) -> None:
    raw = everything()
    assert host.export(host.deliver(raw, demo.address)) == raw


def test_everything_odd_comes_back_over_submission(host: Host, demo: User) -> None:
    raw = everything(demo.address)
    assert host.export(host.submit(raw, demo, demo.address)) == raw


def test_attachments_of_a_small_message_are_exact(host: Host, demo: User) -> None:
    noise = random.Random(2)
    contents = [b"", b"\0", b".\r\n.\r\n", *(noise.randbytes(997 * n) for n in range(1, 18))]
    message_id = host.deliver(attachments(contents, *head(b"Attachments")), demo.address)
    rows = host.rows(
        'SELECT "FileName", "ContentType", "SizeBytes", "Content" FROM public."EmailAttachments"'
        ' WHERE "EmailId" = %s',
        host.email(message_id),
    )
    assert {name: (kind, size, bytes(content)) for name, kind, size, content in rows} == {
        f"part {n}.bin": ("application/octet-stream", len(content), content)
        for n, content in enumerate(contents)
    }


@pytest.mark.parametrize(("mebibytes", "listener"), [(10, "submission"), (40, "mx")])
def test_a_large_message_is_spooled_and_its_memory_bounded(
    host: Host, demo: User, mebibytes: int, listener: str
) -> None:
    noise = random.Random(mebibytes)
    # Two attachments that together, in base64, make the size
    contents = [noise.randbytes(mebibytes * MIB * 3 // 8) for _ in range(2)]
    raw = attachments(contents, *head(b"Large", demo.address))
    before = host.memory()
    host.forget_peak()
    with host.mx() if listener == "mx" else host.submission(demo) as wire:
        message_id = wire.message(raw, demo.address, demo.address).id
    assert host.peak_memory() - before < 60 * MIB + len(raw)  # the spooled file is mapped while it is read
    assert host.memory() - before < 60 * MIB
    exported = host.export(message_id)
    assert (len(exported), hashlib.sha256(exported).digest()) == (len(raw), hashlib.sha256(raw).digest())
    rows = host.rows(
        'SELECT "SizeBytes", "Content" FROM public."EmailAttachments" WHERE "EmailId" = %s'
        ' ORDER BY "FileName"',
        host.emails(message_id)[-1],
    )
    assert [(size, bytes(content) == contents[n]) for n, (size, content) in enumerate(rows)] == [
        (len(content), True) for content in contents
    ]
    assert list((host.data / "spool").iterdir()) == []


def test_a_spool_that_cannot_be_written_defers_large_messages_only(
    new_host: MakeHost, database_parameters: dict[str, str]
) -> None:
    host = new_host(database=database_parameters)
    host.start()
    user = host.user()
    (host.data / "spool").rmdir()
    with host.mx() as wire:
        large = message(body=("x" * 70 + "\r\n") * 20_000)
        assert wire.message(large, "friend@example.org", user.address).start == "452 4.3.1"
        assert wire.message(message(), "friend@example.org", user.address).code == 250
    assert "spool cannot take a message: [Errno 2]" in host.log
    (host.data / "spool").mkdir()
    assert host.export(host.deliver(large, user.address)) == large


def test_bare_newlines_are_stored_as_received_on_submission(host: Host, demo: User) -> None:
    raw = message(sender=demo.address, body="one\ntwo\rthree\r\r\n\nfour\n.\n\r.\r\r\nend\r\n")
    assert host.export(host.submit(raw, demo, demo.address)) == raw


@pytest.mark.parametrize(
    "body", ["one\ntwo\r\n", "one\rtwo\r\n", "one\r\r\n", "\n.\nMAIL FROM:<a@b.example>\r\n"]
)
def test_bare_newlines_are_refused_on_the_mx_and_the_session_stays_in_step(
    host: Host, demo: User, body: str
) -> None:
    with host.mx() as wire:
        refusal = wire.message(message(body=body), "friend@example.org", demo.address)
        assert refusal.start == "550 5.5.2"
        assert wire.command("NOOP").start == "250 2.0.0"
        assert wire.message(message(), "friend@example.org", demo.address).code == 250
        assert wire.command("QUIT").code == 221


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r\n\0.\r\n"])
def test_nothing_but_crlf_dot_crlf_ends_a_message(host: Host, demo: User, ending: bytes) -> None:
    smuggled = (
        ending + b"MAIL FROM:<forged@example.org>\r\nRCPT TO:<" + demo.address.encode() + b">\r\nDATA\r\n"
    )
    with host.mx() as wire:
        wire.envelope("friend@example.org", demo.address)
        wire.command("DATA")
        wire.send(message() + smuggled + message() + b".\r\n")
        assert wire.reply().code in {550, 250}
        assert wire.command("NOOP").start == "250 2.0.0"  # and no reply to smuggled commands before it


def test_an_empty_message_is_stored(host: Host, demo: User) -> None:
    assert host.export(host.deliver(b"", demo.address)) == b""
    assert host.export(host.deliver(b"\r\n", demo.address)) == b"\r\n"


def test_dots_on_the_first_line_are_unstuffed(host: Host, demo: User) -> None:
    for raw in (b".\r\n", b"..\r\n", b".a\r\n.\r\n..\r\n"):
        assert host.export(host.deliver(raw, demo.address)) == raw


def test_a_message_cut_anywhere_is_the_same(host: Host, demo: User) -> None:
    raw = message(body=".\r\n..\r\n\r\n.\r\nend\r\n")
    with host.mx() as wire:
        wire.envelope("friend@example.org", demo.address)
        wire.command("DATA")
        sent = raw.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        for n in range(len(sent)):
            wire.send(sent[n : n + 1])
        assert host.export(wire.reply().id) == raw
