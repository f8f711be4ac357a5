"""Postfix and Exim deliver into the MX."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from relaymail.settings import ConnectionString
from tests.end_to_end.host import Host, Ports, User
from tests.end_to_end.mail import message, new_message_id
from tests.interop.conftest import PATIENT
from tests.interop.relays import ELSEWHERE, RELAYS, Exim, Relay, need_root
from tests.interop.stored import Stored, all_stored, stored
from tests.support.polling import until
from tests.support.postgres import PostgresServer

EIGHT_BIT = (
    "MIME-Version: 1.0",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 8bit",
)
DOTS = "Grüße\r\n.\r\n..\r\n.und so weiter\r\n"


@pytest.fixture(scope="session")
def elsewhere() -> Ports:
    """The ports of :func:`other_host`, which the relays know before it runs."""
    return Ports.free()


@pytest.fixture(scope="session", params=RELAYS, ids=lambda kind: kind.name)
def relay(request: pytest.FixtureRequest, host: Host, elsewhere: Ports) -> Iterator[Relay]:
    """Each of the relays, delivering to :func:`host`."""
    kind: type[Relay] = request.param
    need_root(kind.name)
    with TemporaryDirectory(prefix="relaymail-relay-") as folder:
        relay = kind(Path(folder), host.ports.mx, elsewhere.mx)
        relay.start()
        try:
            yield relay
        finally:
            relay.stop()


@pytest.fixture(scope="session")
def other_host(postgres: PostgresServer, migrated_template: str, elsewhere: Ports) -> Iterator[Host]:
    """A second host, on a database that can be frozen, and soon tired of waiting for it."""
    database = ConnectionString(postgres.parameters(postgres.new_database(migrated_template)))
    settings = {
        **PATIENT,
        "ConnectionStrings__DefaultConnection": database.url(),
        "Smtp__Timeouts__Store": "2",
        "Smtp__Mx__HostedDomains__0": ELSEWHERE,
    }
    with TemporaryDirectory(prefix="relaymail-interop-") as folder:
        host = Host(Path(folder), settings)
        host.ports = elsewhere
        try:
            host.start()
            yield host
        finally:
            host.remove()


def arrived(host: Host, message_id: str) -> Stored:
    """The message with this Message-ID, as soon as it is stored."""
    until(lambda: bool(all_stored(host, message_id)))
    return stored(host, message_id)


def test_a_message_arrives_over_tls(host: Host, user: User, relay: Relay) -> None:
    message_id = new_message_id()
    relay.send(message(message_id=message_id), "<friend@example.org>", [f"<{user.address}>"])
    found = arrived(host, message_id)
    assert (found.listener, found.tls, found.sender) == ("mx", "TLSv1.3", "friend@example.org")
    assert found.body == b"Hello\r\n"
    assert host.readers(str(found.id)) == {host.email(str(found.id)): {user.id}}


def test_8_bit_text_and_dots_arrive_as_they_were(host: Host, user: User, relay: Relay) -> None:
    message_id = new_message_id()
    raw = message(*EIGHT_BIT, body=DOTS, message_id=message_id)
    relay.send(raw, "<friend@example.org> BODY=8BITMIME", [f"<{user.address}>"])
    found = arrived(host, message_id)
    assert found.body == DOTS.encode()
    if isinstance(relay, Exim):
        # It never says BODY, but sends chunks; "K" in its log says so
        until(lambda: re.search(rf" K .*{found.id}", relay.log()) is not None)
    else:
        assert found.parameters["BODY"] == "8BITMIME"


def test_internationalized_mail_arrives(host: Host, relay: Relay) -> None:
    user = host.user("grüße")
    message_id = new_message_id()
    raw = message("Subject: Übung", *EIGHT_BIT, sender="freund@bücher.example", message_id=message_id)
    recipient = f"<{user.address}> NOTIFY=FAILURE ORCPT=utf-8;{user.address}"
    relay.send(raw, "<freund@bücher.example> SMTPUTF8 BODY=8BITMIME", [recipient])
    found = arrived(host, message_id)
    assert "SMTPUTF8" in found.parameters
    assert found.sender == "freund@bücher.example"
    assert list(found.recipients) == [user.address]
    # Postfix and Exim chose each its form of RFC 6533 3
    assert found.recipients[user.address]["ORCPT"] == f"utf-8;{user.address}" or (
        found.recipients[user.address]["ORCPT"] == f"utf-8;{user.address}".replace("üß", r"\x{FC}\x{DF}")
    )
    assert "Subject: Übung".encode() in found.raw


def test_what_is_said_about_delivery_reports_arrives(host: Host, user: User, relay: Relay) -> None:
    message_id = new_message_id()
    other = host.user()
    relay.send(
        message(message_id=message_id),
        "<friend@example.org> RET=HDRS ENVID=QQ+2B314159",
        [
            f"<{user.address}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+2Bone@example.net",
            f"<{other.address}> NOTIFY=NEVER",
        ],
    )
    found = arrived(host, message_id)
    assert (found.parameters["RET"], found.parameters["ENVID"]) == ("HDRS", "QQ+2B314159")
    first, second = found.recipients[user.address], found.recipients[other.address]
    assert set((first["NOTIFY"] or "").split(",")) == {"SUCCESS", "DELAY"}
    assert first["ORCPT"] == "rfc822;first+2Bone@example.net"
    assert second["NOTIFY"] == "NEVER"


def test_5_megabytes_arrive(host: Host, user: User, relay: Relay) -> None:
    message_id = new_message_id()
    body = "".join(f"{secrets.token_hex(38)}\r\n" for _ in range(5_000_000 // 78))
    relay.send(message(body=body, message_id=message_id), "<friend@example.org>", [f"<{user.address}>"])
    assert arrived(host, message_id).body == body.encode()


def test_more_recipients_than_one_transaction_takes_all_get_it(host: Host, user: User, relay: Relay) -> None:
    message_id = new_message_id()
    name = secrets.token_hex(4)
    addresses = {f"{name}-{number}@example.test" for number in range(1200)}
    host.rows(
        'INSERT INTO public."UserEmailAddresses" ("Id", "UserId", "Address", "IsVerified", "AddedAt")'
        " SELECT gen_random_uuid(), %s, address, true, now() FROM unnest(%s) AS address",
        user.id,
        sorted(addresses),
    )
    recipients = [f"<{address}>" for address in sorted(addresses)]
    relay.send(message(message_id=message_id), "<friend@example.org>", recipients)

    def reached() -> list[str]:
        return [address for found in all_stored(host, message_id) for address in found.recipients]

    until(lambda: bool(reached()))
    relay.retry()
    until(lambda: len(reached()) >= len(addresses))
    assert sorted(reached()) == sorted(addresses)
    assert len(all_stored(host, message_id)) == 2


def test_a_message_without_a_sender_arrives(host: Host, user: User, relay: Relay) -> None:
    message_id = new_message_id()
    relay.send(message(message_id=message_id), "<>", [f"<{user.address}>"])
    assert arrived(host, message_id).sender == ""


def bounces(host: Host, address: str) -> list[str]:
    """The Message-IDs of the reports that ``address`` got."""
    rows = host.rows(
        "SELECT message.message_id FROM relaymail.message JOIN relaymail.envelope_recipient AS recipient"
        " ON recipient.message_id = message.id WHERE reverse_path = '' AND address = %s",
        address,
    )
    return [message_id for (message_id,) in rows]


@pytest.mark.parametrize("others", [1, 0], ids=["the others get it", "there are no others"])
def test_a_refused_recipient_is_told_to_the_sender(host: Host, user: User, relay: Relay, others: int) -> None:
    message_id = new_message_id()
    sender = host.user()
    recipients = ["<nobody@example.test>", *[f"<{user.address}>"] * others]
    relay.send(message(message_id=message_id, sender=sender.address), f"<{sender.address}>", recipients)
    until(lambda: bool(bounces(host, sender.address)))
    (bounce_id,) = bounces(host, sender.address)
    bounce = stored(host, bounce_id)
    assert re.search(rb"^Final-Recipient: rfc822; ?nobody@example.test\r$", bounce.body, re.MULTILINE)
    assert re.search(rb"550[ -]5\.1\.1", bounce.body)
    reached = [list(found.recipients) for found in all_stored(host, message_id)]
    assert reached == [[user.address]] * others


def test_a_frozen_database_costs_a_retry_and_the_message_is_stored_once(
    other_host: Host, postgres: PostgresServer, relay: Relay
) -> None:
    message_id = new_message_id()
    user = other_host.user(domain=ELSEWHERE)
    # The address is known from now on, and so the first try gets as far as the content
    other_host.deliver(message(), user.address)
    before = len(relay.log())
    postgres.freeze()
    try:
        relay.send(message(message_id=message_id), "<friend@example.org>", [f"<{user.address}>"])
        until(lambda: re.search(r"\b4[25][0-9][ -]4\.[0-9]\.[0-9]", relay.log()[before:]) is not None)
        assert relay.queued() == 1
    finally:
        postgres.thaw()
    other_host.until_open()
    relay.retry()
    found = arrived(other_host, message_id)
    assert list(found.recipients) == [user.address]
    until(lambda: relay.queued() == 0)
    assert other_host.stored(message_id) == 1
