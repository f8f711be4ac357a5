"""What distinguishes one listener from another, and the limits and timeouts of a session (RFC 5321 4.5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Literal

KIB: Final = 1024
MIB: Final = 1024 * KIB
MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE

ListenerName = Literal["mx", "submission", "submissions"]
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in octets, the rest as counts."""

    message: int = 50 * MIB
    command_line: int = 2 * KIB
    auth_line: int = 12 * KIB
    text_line: int = 64 * KIB
    recipients: int = 1000
    messages: int = 1000
    """Messages per session, for clients that are not exempt."""
    errors: int = 15
    free_errors: int = 4
    """Errors that cost nothing; each later one costs a second."""
    junk_commands: int = 50
    """NOOP, RSET and VRFY before each counts as an error."""
    authentications: int = 3
    null_sender_recipients: int = 1
    connections: int = 2000
    """In all, over all listeners of a process."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for something, unless said otherwise."""

    command: float = 5 * MINUTE
    command_under_load: float = 10.0
    """For a command while most connections are used."""
    handshake: float = MINUTE
    auth_line: float = MINUTE
    data_idle: float = 3 * MINUTE
    data_rate: float = 500.0
    """Octets per second of DATA, on average, after the first minute."""
    store: float = 2 * MINUTE
    proxy_header: float = 5.0
    session: float = 2 * HOUR
    drain: float = MINUTE


@dataclass(frozen=True, slots=True)
class Policy:
    """How one listener talks."""

    listener: ListenerName
    server_name: str
    starttls: bool = False
    """Offer STARTTLS."""
    implicit_tls: bool = False
    authentication: bool = False
    """Offer AUTH (under TLS only) and accept it."""
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
    """Of SASL, in the order in which EHLO offers them."""
    authentication_required: bool = False
    strict_newlines: bool = False
    """Refuse a message with a bare CR or LF."""
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    exempt_networks: tuple[Network, ...] = ()
    """Clients in them may send as many messages per session as they like."""

    proxy_networks: tuple[Network, ...] = ()
    """Clients in them begin with a PROXY header."""
    xclient_networks: tuple[Network, ...] = ()
    """Clients in them may use XCLIENT."""

    def exempts(self, client: str) -> bool:
        """Whether the client with this IP address is in an exempt network."""
        return is_in(self.exempt_networks, client)


def is_in(networks: tuple[Network, ...], client: str) -> bool:
    """Whether one of the networks has this IP address."""
    if not networks:
        return False
    address = ip_address(client.partition("%")[0])
    return any(address in network for network in networks)
