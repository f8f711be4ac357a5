"""What the tests of the client send, and how."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from relaymail.smtp.client import (
    ClientConnection,
    ConnectFailed,
    Mail,
    MailRecipient,
    Outcome,
    TLSRequirement,
    connect,
)
from tests.conftest import reactor
from tests.support.rude_host import NAME, RudeHost

OUR_NAME = "relay.example.org"
BODY = b"Subject: test\r\n\r\n.first\r\nlast\r\n"


def mail(*addresses: str, **facts: Any) -> Mail:
    """A mail to these addresses, or to one of them."""
    recipients = tuple(MailRecipient(address) for address in addresses or ("user@example.test",))
    return Mail("sender@example.org", recipients, facts.pop("size", len(BODY)), **facts)


async def open_to(host: RudeHost, tls: TLSRequirement | None = None, **options: Any) -> ClientConnection:
    """Connect to the host."""
    options = {"host": options.pop("name", NAME), "helo": OUR_NAME, **options}
    tls = tls or TLSRequirement.opportunistic()
    return await connect(options.pop("reactor", reactor), host.address, host.port, tls=tls, **options)


async def refusal_of(host: RudeHost, tls: TLSRequirement | None = None, **options: Any) -> ConnectFailed:
    """How connecting to the host fails."""
    try:
        await open_to(host, tls, **options)
    except ConnectFailed as failure:
        return failure
    raise AssertionError("it did not fail")


async def one_outcome(host: RudeHost, **options: Any) -> Outcome:
    """What becomes of a mail to one recipient over a new connection."""
    connection = await open_to(host, **options)
    (outcome,) = await connection.send(mail(), BODY)
    connection.quit()
    return outcome


async def in_parts(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    """A body in parts."""
    for part in parts:
        yield part
