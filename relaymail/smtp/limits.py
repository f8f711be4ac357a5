"""How much one client may ask for: connections at a time, and connections, messages and recipients a minute.

A client is an IPv4 address, or an IPv6 /64: what one customer has. What is counted is the address that a
proxy of ours names where there is one. Counts are kept in memory, of a bounded number of clients, and every
event costs the same however many there are.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from sys import maxsize
from typing import Final

from relaymail.smtp import reply
from relaymail.smtp.policy import MINUTE, Network, is_in
from relaymail.smtp.reply import Reply, ReplyError

CLIENTS_KEPT: Final = 50_000
"""Clients without a connection that are remembered; the one that left longest ago is forgotten first."""
FORGOTTEN_AFTER: Final = 2 * MINUTE
"""Behind this nothing of a client counts any more."""
IPV6_NETWORK_BITS: Final = 64

_NETWORK_MASK: Final = (2**IPV6_NETWORK_BITS - 1) << (128 - IPV6_NETWORK_BITS)
_ROUNDING: Final = 1e-6
"""Events, or seconds, that floats may be off by: who waited as long as told must not be refused for it."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a client may have on one kind of listener."""

    connections: int = maxsize
    """At a time."""
    connections_per_minute: int = maxsize
    messages_per_minute: int = maxsize
    recipients_per_minute: int = maxsize


class Rate:
    """Counts events over the last minute, as the sum of this minute's and the part of the last minute's that
    is less than a minute ago, had they come evenly."""

    __slots__ = ("_before", "_began", "_count")

    def __init__(self, now: float) -> None:
        self._began = now
        self._count = 0
        self._before = 0

    def wait(self, limit: int, now: float) -> int:
        """Whole seconds until one more is within ``limit``. 0: it is, and has been counted."""
        passed = self._passed(now)
        if self._count >= limit:
            until = 1.0
        elif self._before * (1 - passed) + self._count > limit + _ROUNDING:
            until = 1 - (limit - self._count) / self._before
        else:
            self._count += 1
            return 0
        return max(1, math.ceil((until - passed) * MINUTE - _ROUNDING))

    def recent(self, now: float) -> int:
        """Events over the last minute."""
        return math.ceil(self._before * (1 - self._passed(now)) + self._count - _ROUNDING)

    def _passed(self, now: float) -> float:
        """The part of this minute that has passed; begins another one when it is over."""
        passed = (now - self._began + _ROUNDING) / MINUTE
        if passed < 1:
            return passed
        whole = int(passed)
        self._before = self._count if whole == 1 else 0
        self._count = 0
        self._began += whole * MINUTE
        return passed - whole


class _Client:
    """The counts of one client."""

    __slots__ = ("arrivals", "connections", "left", "messages", "network", "recipients", "refused")

    def __init__(self, network: str, now: float) -> None:
        self.network = network
        self.connections = 0
        self.left = now
        self.refused = 0
        self.forget(now)

    def forget(self, now: float) -> None:
        """Begin to count anew, but for the connections that are open."""
        self.arrivals = Rate(now)
        self.messages = Rate(now)
        self.recipients = Rate(now)


@dataclass(frozen=True, slots=True)
class ClientState:
    """What is counted of one client at the moment."""

    client: str
    connections: int
    connections_per_minute: int
    messages_per_minute: int
    recipients_per_minute: int
    refused: int
    """Refusals since the client was first seen."""


class ClientLimits:
    """The clients of one kind of listener.

    :param seconds: a monotonic clock.
    :param exempt_networks: their clients are not counted.
    """

    def __init__(
        self, seconds: Callable[[], float], allowance: Allowance, exempt_networks: tuple[Network, ...] = ()
    ) -> None:
        self.seconds = seconds
        self.allowance = allowance
        self._exempt = exempt_networks
        self._present: dict[str, _Client] = {}
        self._gone: OrderedDict[str, _Client] = OrderedDict()

    def __len__(self) -> int:
        """Clients that are remembered."""
        return len(self._present) + len(self._gone)

    def enter(self, address: str) -> _Client | None:
        """Count a connection of this client in; ``None``: it is exempt. Raises :exc:`ReplyError`."""
        if is_in(self._exempt, address):
            return None
        network, now = network_of(address), self.seconds()
        client = self._present.get(network) or self._gone.pop(network, None) or _Client(network, now)
        try:
            if client.connections >= self.allowance.connections:
                raise ReplyError(reply.TOO_MANY_FROM_CLIENT)
            wait = client.arrivals.wait(self.allowance.connections_per_minute, now)
            if wait:
                raise ReplyError(reply.connecting_too_fast(wait))
        except ReplyError:
            client.refused += 1
            if not client.connections:
                self._remember(client, now)
            raise
        client.connections += 1
        self._present[network] = client
        return client

    def leave(self, client: _Client) -> None:
        """Count a connection out."""
        client.connections -= 1
        if not client.connections:
            del self._present[client.network]
            self._remember(client, self.seconds())

    def _remember(self, client: _Client, now: float) -> None:
        """Keep a client that has no connection, for as long as its counts mean something."""
        client.left = now
        self._gone[client.network] = client
        for _ in range(2):
            oldest = next(iter(self._gone.values()))
            if len(self._gone) <= CLIENTS_KEPT and now - oldest.left < FORGOTTEN_AFTER:
                break
            del self._gone[oldest.network]

    def states(self, most: int) -> list[ClientState]:
        """The clients that have connections, and those that left last, ``most`` of them in all."""
        now = self.seconds()
        present = islice(self._present.values(), most)
        gone = islice(reversed(self._gone.values()), max(0, most - len(self._present)))
        return [
            ClientState(
                client.network,
                client.connections,
                client.arrivals.recent(now),
                client.messages.recent(now),
                client.recipients.recent(now),
                client.refused,
            )
            for client in (*present, *(client for client in gone if now - client.left < FORGOTTEN_AFTER))
        ]

    def reset(self, network: str | None) -> int:
        """Begin to count one client, or all, anew; returns how many were known. Connections stay counted."""
        now = self.seconds()
        if network is None:
            found = len(self)
            self._gone.clear()
            for client in self._present.values():
                client.forget(now)
            return found
        present = self._present.get(network)
        if present is not None:
            present.forget(now)
        return int(present is not None or self._gone.pop(network, None) is not None)


class Visit:
    """One connection among those of its client; it goes over to another client where a proxy names one.

    ``limits`` of ``None``: nothing is counted.
    """

    __slots__ = ("_client", "_limits")

    def __init__(self, limits: ClientLimits | None) -> None:
        self._limits = limits
        self._client: _Client | None = None

    def enter(self, address: str) -> None:
        """The connection is this client's from now on. Raises :exc:`ReplyError`; then it is nobody's."""
        self.leave()
        if self._limits is not None:
            self._client = self._limits.enter(address)

    def leave(self) -> None:
        """The connection is over."""
        client, self._client = self._client, None
        if client is not None and self._limits is not None:
            self._limits.leave(client)

    def message(self) -> None:
        """Count a message. Raises :exc:`ReplyError`."""
        client, limits = self._client, self._limits
        if client is None or limits is None:
            return
        wait = client.messages.wait(limits.allowance.messages_per_minute, limits.seconds())
        if wait:
            raise _refusal(client, reply.sending_too_fast("messages", wait))

    def recipient(self) -> None:
        """Count a recipient. Raises :exc:`ReplyError`."""
        client, limits = self._client, self._limits
        if client is None or limits is None:
            return
        wait = client.recipients.wait(limits.allowance.recipients_per_minute, limits.seconds())
        if wait:
            raise _refusal(client, reply.sending_too_fast("recipients", wait))


def _refusal(client: _Client, answer: Reply) -> ReplyError:
    client.refused += 1
    return ReplyError(answer)


def network_of(client: str) -> str:
    """What a client is counted as: its IPv4 address or IPv6 /64; a mapped IPv4 address is the IPv4 one."""
    if ":" not in client:
        return client
    try:
        address = ipaddress.IPv6Address(client.partition("%")[0])
    except ValueError:
        return client
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    # IPv6Network would say the same in four times the time
    return f"{ipaddress.IPv6Address(int(address) & _NETWORK_MASK)}/{IPV6_NETWORK_BITS}"
