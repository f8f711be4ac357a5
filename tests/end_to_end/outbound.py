"""What tests of outbound mail share: name servers, next hosts, and what the queue says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from tests.end_to_end.host import Host
from tests.end_to_end.sink import Sink
from tests.support.dns_server import ThreadedDNSServer, Zones
from tests.support.polling import LIMIT, until
from tests.support.ports import free_port

NAME = "relay.sender.test"
"""How the host calls itself to others."""


class Internet:
    """Name servers and a port that all next hosts share; each domain has a sink at an address of its own."""

    def __init__(self) -> None:
        self.zones = Zones()
        self.dns = ThreadedDNSServer(self.zones)
        self.dns.start()
        self.sinks: list[Sink] = []
        self.port = free_port()

    def sink(self, *domains: str, **how: Any) -> Sink:
        """A next host for these domains."""
        sink = Sink(f"127.0.0.{len(self.sinks) + 2}", self.port, **how)
        self.sinks.append(sink)
        self.lead(sink, *domains)
        return sink

    def lead(self, sink: Sink, *domains: str) -> None:
        """Have the MX of these domains lead to a sink."""
        name = f"mx{self.sinks.index(sink)}.hosts.test"
        self.zones.a(name, sink.address)
        for domain in domains:
            self.zones.mx(domain, f"10 {name}")

    @property
    def settings(self) -> dict[str, str]:
        """What the host must be told of it; a second between tries."""
        return {
            "OutboundMail__SenderDomain": NAME,
            "OutboundMail__Port": str(self.port),
            "OutboundMail__QueuePollingIntervalSeconds": "0.5",
            **{f"OutboundMail__RetryDelays__{n}": "1" for n in range(20)},
            "Dns__Servers__0": self.dns.address,
        }

    def stop(self) -> None:
        """End all of it."""
        for sink in self.sinks:
            sink.stop()
        self.dns.stop()


@contextmanager
def internet() -> Iterator[Internet]:
    """One for the length of a block."""
    made = Internet()
    try:
        yield made
    finally:
        made.stop()


def states(host: Host, message: str) -> dict[str, str]:
    """The state of each queued recipient of a message."""
    rows = host.rows("SELECT recipient, state FROM relaymail.queue WHERE message_id = %s", UUID(message))
    return dict(rows)


def until_state(host: Host, message: str, state: str, limit: float = LIMIT) -> None:
    """Wait until all queued recipients of a message are in a state."""
    until(lambda: set(states(host, message).values()) == {state}, limit)


def first_attempt(host: Host, message: str) -> tuple[Any, ...]:
    """The first try, once it has ended, as :func:`attempts` has it."""
    until(lambda: any(outcome != "running" for outcome, *_ in attempts(host, message)))
    return attempts(host, message)[0]


def attempts(host: Host, message: str) -> list[tuple[Any, ...]]:
    """Outcome, phase, status and possible duplicate of each try, oldest first."""
    return host.rows(
        "SELECT outcome, phase, status, possible_duplicate FROM relaymail.attempts WHERE message_id = %s"
        " ORDER BY started_at, number",
        UUID(message),
    )
