"""Clients that do what nobody expects: the replies stay right, the order is kept, and nobody else notices."""

from __future__ import annotations

import socket
import ssl
import threading
import time

import pytest

from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message, new_message_id
from tests.end_to_end.wire import Closed, Wire, stuffed
from tests.support.polling import until


def pipeline(recipients: list[str], raw: bytes) -> bytes:
    """A whole transaction in one piece."""
    lines = ["MAIL FROM:<friend@example.org>", *(f"RCPT TO:<{one}>" for one in recipients), "DATA"]
    return "\r\n".join([*lines, ""]).encode() + stuffed(raw)


def test_a_whole_session_in_one_packet(host: Host, demo: User) -> None:
    first, second = message(), message()
    with Wire(host.ports.mx) as wire:
        wire.send(
            b"EHLO client.test\r\n"
            + pipeline([demo.address], first)
            + pipeline(["nobody@example.test", demo.address], second)
            + b"QUIT\r\n"
        )
        codes = [wire.reply() for _ in range(11)]
        assert [answer.code for answer in codes] == [250, 250, 250, 354, 250, 250, 550, 250, 354, 250, 221]
        assert wire.rest() == b""
    assert [host.export(codes[n].id) for n in (4, 9)] == [first, second]


def test_a_whole_session_in_one_packet_that_then_half_closes(host: Host, demo: User) -> None:
    message_id = new_message_id()
    with Wire(host.ports.mx) as wire:
        wire.send(b"EHLO client.test\r\n" + pipeline([demo.address], message(message_id=message_id)))
        wire.socket.shutdown(socket.SHUT_WR)
        assert [wire.reply().code for _ in range(5)] == [250, 250, 250, 354, 250]
        assert wire.rest() == b""
    assert host.stored(message_id) == 1


def test_a_half_close_in_the_middle_of_data_stores_nothing(host: Host, demo: User) -> None:
    message_id = new_message_id()
    with host.mx() as wire:
        wire.envelope("friend@example.org", demo.address)
        wire.command("DATA")
        wire.send(message(message_id=message_id) + b".\r")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b""
    assert host.stored(message_id) == 0


@pytest.mark.parametrize("size", [100, 300_000])
def test_a_client_that_dies_in_the_middle_of_data_leaves_nothing(host: Host, demo: User, size: int) -> None:
    message_id = new_message_id()
    with host.mx() as wire:
        wire.envelope("friend@example.org", demo.address)
        wire.command("DATA")
        wire.send(message(message_id=message_id) + b"x" * 70 + b"\r\n" + b"y" * 60 * (size // 60))
        wire.reset()
    until(lambda: host.log.count("ended") > 0)
    assert host.stored(message_id) == 0
    until(lambda: not list((host.data / "spool").iterdir()))


def test_a_client_that_dies_behind_the_dot_is_stored_at_most_once(host: Host, demo: User) -> None:
    message_id = new_message_id()
    raw = message(message_id=message_id)
    for _ in range(5):
        with host.mx() as wire:
            wire.envelope("friend@example.org", demo.address)
            wire.command("DATA")
            wire.send(raw + b".\r\n")
            wire.reset()
    assert host.deliver(raw, demo.address)
    assert host.stored(message_id) == 1


def test_a_resend_on_the_mx_gets_the_first_id_and_on_submission_a_new_one(host: Host, demo: User) -> None:
    raw = message()
    assert host.deliver(raw, demo.address) == host.deliver(raw, demo.address)
    other = host.user()
    assert host.deliver(raw, demo.address) != host.deliver(raw, other.address)
    raw = message(sender=demo.address)
    assert host.submit(raw, demo, demo.address) != host.submit(raw, demo, demo.address)


def test_many_recipients_in_one_packet_keep_their_order(host: Host, demo: User) -> None:
    known = [host.user() for _ in range(10)]
    recipients = [f"nobody.{n}@example.test" if n % 100 == 99 else known[n % 10].address for n in range(500)]
    with host.mx() as wire:
        wire.send(pipeline(recipients, message()))
        codes = [wire.reply().code for _ in range(501)]
        assert codes == [250, *(550 if n % 100 == 99 else 250 for n in range(500))]
        assert wire.reply().code == 354
        assert wire.reply().code == 250


def test_the_1001st_recipient_is_deferred(host: Host, demo: User) -> None:
    with host.mx() as wire:
        wire.command("MAIL FROM:<friend@example.org>")
        wire.send(f"RCPT TO:<{demo.address}>\r\n".encode() * 1001)
        codes = [wire.reply().start for _ in range(1001)]
        assert codes == ["250 2.1.5"] * 1000 + ["452 4.5.3"]
        assert wire.data(message()).code == 250


def test_a_trusted_client_may_send_as_much_over_one_connection_as_it_likes(host: Host, demo: User) -> None:
    with host.mx() as wire:
        for _ in range(11):
            wire.send(b"".join(pipeline([demo.address], message()) for _ in range(100)))
            assert [wire.reply().code for _ in range(400)] == [250, 250, 354, 250] * 100


def test_messages_of_several_sessions_do_not_mix(host: Host, demo: User) -> None:
    users = [host.user() for _ in range(4)]
    sent: list[tuple[User, str, bytes]] = []

    def send(user: User) -> None:
        for n in range(5):
            raw = message(f"Subject: {user.address} {n}", body=f"{user.address}\r\n" * 2000)
            with host.mx() as wire:
                wire.envelope("friend@example.org", user.address)
                wire.command("DATA")
                data = stuffed(raw)
                for at in range(0, len(data), 9973):
                    wire.send(data[at : at + 9973])
                sent.append((user, wire.reply().id, raw))

    threads = [threading.Thread(target=send, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 20
    for user, message_id, raw in sent:
        (parts,) = host.row(
            "SELECT string_agg(content, ''::bytea ORDER BY n) FROM relaymail.message_part"
            " WHERE message_id = %s::uuid",
            message_id,
        )
        assert bytes(parts) == raw
        assert set(host.readers(message_id).values().__iter__().__next__()) == {user.id}


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /x HTTP/1.1\r\n", b"get /\r\n"]
)
@pytest.mark.parametrize("listener", ["mx", "submission"])
def test_http_is_sent_away(host: Host, first: bytes, listener: str) -> None:
    with Wire(getattr(host.ports, listener)) as wire:
        wire.send(first)
        assert wire.reply().code == 221
        assert wire.rest() == b""


def test_a_tls_hello_in_clear_is_sent_away_at_once(host: Host) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    # Whether or not there is something in it that looks like the end of a line
    for end in (b"", b"\n", b"\r\n"):
        with Wire(host.ports.mx) as wire:
            wire.send(hello[:50] + end + hello[50:].replace(b"\n", b"\x0b"))
            assert wire.reply().code == 221
            assert wire.rest() == b""


def test_plaintext_on_the_tls_port_is_dropped(host: Host) -> None:
    with Wire(host.ports.submissions, greet=False) as wire:
        wire.send(b"EHLO client.test\r\n")
        assert b"250" not in wire.rest()
    with host.smtplib(User.__new__(User), implicit=True) as client:
        assert client.noop()[0] == 250


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "two words",
        "\x7f",
        "\x01",
        "[127.0.0.1]",
        "ü.example",
        "x" * 1000,
        "-",
        "a\tb",
        "<script>",
        "%s{x}",
    ],
)
def test_ehlo_with_whatever_name_does_no_harm(host: Host, demo: User, name: str) -> None:
    with Wire(host.ports.mx) as wire:
        answer = wire.command(f"EHLO {name}")
        assert answer.code in {250, 500, 501}
        if answer.code == 250:
            message_id = wire.message(message(), "friend@example.org", demo.address).id
            shown = host.row("SELECT client_name FROM relaymail.message WHERE id = %s::uuid", message_id)
            assert shown == (name,)
        else:
            assert wire.command("MAIL FROM:<friend@example.org>").start == "503 5.5.1"


@pytest.mark.parametrize("behind", [b"EHLO evil.test\r\n", b"MAIL FROM:<evil@example.org>\r\n", b"x"])
@pytest.mark.parametrize("listener", ["mx", "submission"])
def test_nothing_is_carried_over_into_tls(host: Host, behind: bytes, listener: str) -> None:
    with Wire(getattr(host.ports, listener)) as wire:
        wire.hello()
        wire.send(b"STARTTLS\r\n" + behind)
        assert wire.reply().start == "501 5.5.1"
        assert wire.rest() == b""


def test_what_was_said_before_tls_is_forgotten(host: Host, demo: User) -> None:
    with host.mx() as wire:
        wire.envelope("friend@example.org", demo.address)
        assert wire.command("STARTTLS").code == 220
        wire.wrap()
        assert wire.command("DATA").start == "503 5.5.1"
        assert wire.command("MAIL FROM:<a@b.example>").start == "503 5.5.1"
        wire.hello()
        assert wire.command("STARTTLS").start == "554 5.5.1"
        assert wire.message(message(), "friend@example.org", demo.address).code == 250


def test_a_tls_handshake_that_fails_costs_one_session_only(host: Host, demo: User) -> None:
    with host.mx() as wire:
        assert wire.command("STARTTLS").code == 220
        wire.send(b"this is no handshake\r\n" * 10)
        wire.rest()
    assert host.deliver(message(), demo.address)


def test_a_body_behind_a_refused_data_is_not_run(host: Host) -> None:
    with host.mx() as wire:
        wire.send(
            b"MAIL FROM:<friend@example.org>\r\nRCPT TO:<nobody@example.test>\r\nDATA\r\n"
            b"Subject: x\r\n\r\nMAIL FROM:<evil@example.org>\r\n.\r\n"
        )
        assert [wire.reply().start for _ in range(3)] == ["250 2.1.0", "550 5.1.1", "554 5.5.1"]
        assert wire.rest() == b""


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"", "500 5.5.2"),
        (b"\0\0\0\0", "500 5.5.2"),
        (b"\xff\xfe\xfd", "500 5.5.2"),
        (b"NOOP " + b"x" * 5000, "500 5.5.2"),
        (b"XYZZY", "500 5.5.2"),
        (b"EXPN list", "502 5.5.1"),
        (b"VRFY demo", "252 2.0.0"),
        (b"HELP", "214 2.0.0"),
        (b"RSET", "250 2.0.0"),
        (b"RCPT TO:<demo@example.test>", "503 5.5.1"),
        (b"DATA", "503 5.5.1"),
        (b"MAIL", "501 5.5.4"),
        (b"MAIL FROM:", "501 5.5.4"),
        (b"MAIL FROM:friend@example.org", "501 5.5.4"),
        (b"MAIL FROM:<friend>", "501 5.1.7"),
        (b"MAIL FROM:<friend@example.org> SIZE=99999999999", "552 5.3.4"),
        (b"MAIL FROM:<friend@example.org> SIZE=x", "501 5.5.4"),
        (b"MAIL FROM:<friend@example.org> NO-SUCH=1", "555 5.5.4"),
        ("MAIL FROM:<größe@example.org>".encode(), "553 5.6.7"),
        (b"MAIL FROM:<" + b"x" * 65 + b"@example.org>", "501 5.1.7"),
        (b"mail from: <friend@example.org>", "250 2.1.0"),
    ],
)
def test_odd_lines_have_their_replies_and_the_session_goes_on(host: Host, line: bytes, answer: str) -> None:
    with host.mx() as wire:
        assert wire.command(line).start == answer
        assert wire.command("NOOP").start == "250 2.0.0"


def test_a_line_without_an_end_costs_no_memory(host: Host) -> None:
    before = host.memory()
    with host.mx() as wire:
        for _ in range(64):
            wire.send(b"x" * 1024 * 1024)
        wire.send(b"\r\n")
        assert wire.reply().start == "500 5.5.2"
        assert host.memory() - before < 20 * 1024 * 1024
        assert wire.command("NOOP").start == "250 2.0.0"


def test_too_many_errors_end_a_session(host: Host) -> None:
    with host.mx() as wire:
        wire.send(b"XYZZY\r\n" * 4)
        assert [wire.reply().code for _ in range(4)] == [500] * 4
        began = time.monotonic()
        assert wire.command("XYZZY").code == 500
        assert time.monotonic() - began > 0.9


def test_a_message_over_the_limit_is_refused_behind_the_dot_without_being_kept(
    host: Host, demo: User
) -> None:
    before = host.memory()
    with host.mx() as wire:
        wire.envelope("friend@example.org", demo.address)
        wire.command("DATA")
        for _ in range(52):
            wire.send((b"x" * 1022 + b"\r\n") * 1024)
        wire.send(b".\r\n")
        assert wire.reply().start == "552 5.3.4"
        assert wire.message(message(), "friend@example.org", demo.address).code == 250
    assert host.memory() - before < 20 * 1024 * 1024


def test_an_attachment_over_the_limit_is_refused(host: Host, demo: User) -> None:
    head = message(
        'Content-Type: application/octet-stream; name="a"', "Content-Disposition: attachment", body=""
    )
    with host.mx() as wire:
        wire.envelope("friend@example.org", demo.address)
        wire.command("DATA")
        wire.send(head)
        for _ in range(26):
            wire.send((b"x" * 1022 + b"\r\n") * 1024)
        wire.send(b".\r\n")
        assert wire.reply().start == "552 5.3.4"


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"Received: x\r\n" * 101 + message(), "554 5.4.6"),
        (b"X-Long: " + b"y\r\n " * 90_000 + b"\r\n" + message(), "552 5.3.4"),
        (b"x" * 65_537 + b"\r\n", "554 5.6.0"),
    ],
)
def test_a_message_that_must_not_be_taken_is_refused(host: Host, demo: User, raw: bytes, answer: str) -> None:
    with host.mx() as wire:
        assert wire.message(raw, "friend@example.org", demo.address).start == answer
        assert wire.message(message(), "friend@example.org", demo.address).code == 250


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"no header at all\r\n",
        b": no name\r\n\r\n",
        b'From: \xff\xfe\r\nTo: =?x?y?z?=, "unclosed\r\nSubject: =?utf-8?b?////?=\r\n\r\n',
        b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n--\r\n',
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        + b"--b\r\nContent-Type: multipart/mixed\r\n\r\n" * 500,
        b"To: " + b"(" * 5000 + b"\r\n\r\n",
        b"To: " + b"a@b.example, " * 4000 + b"\r\n\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=" * 5000 + b"\r\n",
        b"Content-Type: message/rfc822\r\n\r\n" * 300 + b"\r\n",
        b"Date: yesterday\r\nMIME-Version: 9\r\nContent-Type: text/html; charset=utf-16\r\n\r\n\xff\xfe\r\n",
    ],
)
def test_what_cannot_be_parsed_is_stored_all_the_same(host: Host, demo: User, raw: bytes) -> None:
    message_id = host.deliver(raw, demo.address)
    (parts,) = host.row(
        "SELECT string_agg(content, ''::bytea ORDER BY n) FROM relaymail.message_part"
        " WHERE message_id = %s::uuid",
        message_id,
    )
    assert bytes(parts) == raw
    assert set().union(*host.readers(message_id).values()) == {demo.id}


PATIENCE = 4
"""Seconds for which a client may be silent."""


def test_a_slow_client_is_not_hurried_and_a_silent_one_is_given_up(
    new_host_with_short_timeouts: Host,
) -> None:
    host = new_host_with_short_timeouts
    user = host.user()
    with host.mx() as slow, host.mx() as silent, Wire(host.ports.submission) as idle:
        for wire in (slow, silent):
            wire.envelope("friend@example.org", user.address)
            wire.command("DATA")
        raw = message(body="x\r\n" * 30)
        began = time.monotonic()
        # Far more often than it must, and for longer than it may be silent
        for n in range(0, len(raw), 4):
            slow.send(raw[n : n + 4])
            time.sleep(0.1)
        assert time.monotonic() - began > PATIENCE
        slow.send(b".\r\n")
        assert slow.reply().code == 250
        assert silent.reply().start == "421 4.4.2"
        assert idle.reply().start == "421 4.4.2"
        with pytest.raises(Closed):
            silent.reply()


@pytest.fixture
def new_host_with_short_timeouts(request: pytest.FixtureRequest) -> Host:
    """A host that waits some seconds for what others have minutes for."""
    make = request.getfixturevalue("new_host")
    parameters = request.getfixturevalue("database_parameters")
    settings = {
        "Smtp__Timeouts__DataIdle": str(PATIENCE),
        "Smtp__Timeouts__Command": str(PATIENCE),
        "Smtp__Timeouts__DataMinimumRate": "0",
    }
    host: Host = make(settings, database=parameters)
    host.start()
    return host


def test_a_thousand_connections_and_as_many_drops_leave_the_host_well(host: Host, demo: User) -> None:
    before = host.memory()
    for _ in range(20):
        wires = [Wire(host.ports.mx, greet=False) for _ in range(50)]
        for n, wire in enumerate(wires):
            wire.send([b"", b"EHLO", b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n", b"\0" * 100][n % 4])
            wire.reset() if n % 2 else wire.close()
    assert host.deliver(message(), demo.address)
    assert host.memory() - before < 30 * 1024 * 1024
    assert "Unhandled" not in host.log
    assert "Traceback" not in host.log
