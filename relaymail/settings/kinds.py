"""The kinds of values settings have: how each is read from text, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from relaymail.settings.connection_string import ConnectionString
from relaymail.settings.errors import SettingsError
from relaymail.settings.names import parse_domain, parse_host, parse_mailbox
from relaymail.settings.secret import HIDDEN, Secret
from relaymail.settings.spelling import nearest
from relaymail.settings.timespan import format_timespan, parse_timespan

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YEAR = 366 * DAY

JSONValue = str | int | float | bool | None


class HealthUrl(NamedTuple):
    """Where health is served over plain HTTP."""

    host: str | None
    """``localhost`` or an IP address; ``None`` is all interfaces."""
    port: int
    """0 is any free port."""

    def __str__(self) -> str:
        host = "+" if self.host is None else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class DnsServer(NamedTuple):
    """A name server."""

    address: str
    port: int = 53

    def __str__(self) -> str:
        if self.port == 53:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class HostAndPort(NamedTuple):
    """A server somewhere."""

    host: str
    """A name or an IP address."""
    port: int = 25

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one kind are read and shown."""

    allowed: str
    """What is allowed, in words, for errors and the reference."""
    parse: Callable[[str], Any]
    """From text that is not empty; raises :class:`SettingsError` with what is wrong about it."""
    show: Callable[[Any], JSONValue] = str
    """For people; hides secrets."""
    secret: bool = False
    """Whether the text given must not be shown, even if it is wrong."""
    span: bool = False
    """Whether it is a TimeSpan in seconds."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is to be known about a key besides its name, type and default."""

    meaning: str
    kind: Kind
    many: bool = False
    """Whether it is a list."""
    single: bool = False
    """Whether a list may be given as one value, too."""


def whole(low: int, high: int) -> Kind:
    """A whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip(), re.ASCII):
            raise SettingsError("not a whole number")
        value = int(text)
        if not low <= value <= high:
            raise SettingsError("out of range")
        return value

    return Kind(f"a whole number from {low} to {high}", parse, int)


def span(low: float, high: float) -> Kind:
    """A TimeSpan from ``low`` to ``high`` seconds."""

    def parse(text: str) -> float:
        value = parse_timespan(text)
        if not low <= value <= high:
            raise SettingsError("out of range")
        return value

    allowed = (
        "a TimeSpan [d.]hh:mm:ss[.fff] or a number of seconds, "
        f"from {format_timespan(low)} to {format_timespan(high)}"
    )
    return Kind(allowed, parse, format_timespan, span=True)


def choice(*names: str) -> Kind:
    """One of ``names``, in any case."""

    def parse(text: str) -> str:
        given = text.strip()
        for name in names:
            if name.casefold() == given.casefold():
                return name
        near = nearest(given, names)
        raise SettingsError(f'did you mean "{near}"?' if near else "unknown")

    return Kind(f"one of {', '.join(names)}", parse)


def _flag(text: str) -> bool:
    value = {"true": True, "false": False}.get(text.strip().lower())
    if value is None:
        raise SettingsError("not a boolean")
    return value


def _text(text: str) -> str:
    if not text.isprintable():
        raise SettingsError("holds control characters or bytes that are not UTF-8")
    return text


def _path(text: str) -> Path:
    if "\0" in text:
        raise SettingsError("holds a NUL")
    return Path(text)


def _secret(text: str) -> Secret:
    # a secret mounted from a file or made with `echo` ends with a line break that nobody means
    text = text.rstrip("\r\n")
    if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in text):
        raise SettingsError("holds control characters or bytes that are not UTF-8")
    return Secret(text)


def _network(text: str) -> Any:
    try:
        return ip_network(text.strip())
    except ValueError as error:
        if "host bits" in str(error):
            raise SettingsError(
                f"has host bits set; did you mean {ip_network(text.strip(), strict=False)}?"
            ) from None
        raise SettingsError("not a network") from None


def _address(text: str) -> str:
    try:
        return str(ip_address(text.strip().removeprefix("[").removesuffix("]")))
    except ValueError:
        raise SettingsError("not an IP address") from None


def _endpoint(text: str) -> str:
    if not re.match(r"[A-Za-z][A-Za-z0-9_.]*:.", _text(text).strip()):
        raise SettingsError("not an endpoint string")
    return text.strip()


def _port(text: str) -> int:
    value: int = PORT.parse(text)
    return value


def _dns_server(text: str) -> DnsServer:
    text = text.strip()
    match = re.fullmatch(r"\[(?P<six>[^\]]*)\](?::(?P<p6>.*))?|(?P<four>[^:]*):(?P<p4>[^:]*)", text)
    if match is None:
        return DnsServer(_address(text))
    address, port = (match["six"], match["p6"]) if match["four"] is None else (match["four"], match["p4"])
    return DnsServer(_address(address), 53 if port is None else OPEN_PORT.parse(port))


def _host_and_port(text: str) -> HostAndPort:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]+))?", text.strip())
    if match is None:
        raise SettingsError("not a host with a port")
    return HostAndPort(parse_host(match[1]), OPEN_PORT.parse(match[2]) if match[2] else 25)


def _http_url(text: str) -> str:
    text = text.strip()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise SettingsError("a malformed URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError("not an http:// or https:// URL")
    if "@" in parts.netloc:
        raise SettingsError("holds a login")
    if parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise SettingsError("holds a query, a fragment or blanks")
    parse_host(parts.hostname)
    return text.rstrip("/")


def _health_url(text: str) -> HealthUrl:
    match = re.fullmatch(
        r"(?P<scheme>https?)://(?P<host>\[[^\]/]*\]|[^:/\[\]]*)(?::(?P<port>[0-9]+))?/?", text.strip(), re.I
    )
    if match is None:
        raise SettingsError("not such a URL")
    if match["scheme"].lower() == "https":
        raise SettingsError("health is served over plain http; put a proxy in front of it for https")
    port = _port(match["port"] or "80")
    host = match["host"].lower()
    if host in ("+", "*"):
        return HealthUrl(None, port)
    if host == "localhost":
        return HealthUrl(host, port)
    address = _address(host)
    return HealthUrl(None if address in ("0.0.0.0", "::") else address, port)  # noqa: S104 - it is being read


FLAG = Kind("true or false", _flag, bool)
TEXT = Kind("text without control characters", _text)
PATH = Kind("a path", _path)
SECRET = Kind("a text without control characters", _secret, lambda _: HIDDEN, secret=True)
CONNECTION = Kind(
    "Host=…;Port=…;Database=…;Username=…;Password=… or a postgresql:// URL",
    ConnectionString.parse,
    lambda value: str(value.redacted()),
    secret=True,
)
PORT = whole(0, 65535)
OPEN_PORT = whole(1, 65535)
LIMIT = whole(0, 2**31 - 1)
SIZE = whole(1, 2**31 - 1)
WAIT = span(0.001, YEAR)
PATIENCE = span(0, YEAR)
AGE = span(1, 1000 * YEAR)
DOMAIN = Kind("a domain name such as example.com", parse_domain)
SERVER_NAME = Kind("a host name or an IP address", parse_host)
MAILBOX = Kind("an address such as postmaster@example.com", parse_mailbox)
NETWORK = Kind("an IP address or a network such as 10.0.0.0/8 or 2001:db8::/32", _network)
ADDRESS = Kind("an IP address", _address)
DNS_SERVER = Kind("an IP address, with a port as 192.0.2.1:53 or [2001:db8::1]:53", _dns_server)
ENDPOINT = Kind("a Twisted endpoint string such as systemd:domain=INET:name=submission", _endpoint)
HOST_AND_PORT = Kind("a host name or an IP address, with a port as mx.example.com:25", _host_and_port)
HTTP_URL = Kind("an http:// or https:// URL without login, query and fragment", _http_url)
HEALTH_URL = Kind(
    "http://HOST:PORT where HOST is localhost, an IP address, or + or * for all interfaces", _health_url
)


def _workers(text: str) -> int:
    value: int = OPEN_PORT.parse(text)
    if value != 1:
        raise SettingsError(
            "several worker processes are not available in this version; run several hosts on one database "
            "instead, with a balancer in front of them"
        )
    return value


WORKERS = Kind("1", _workers, int)
CHECK = choice(
    "database",
    "smtp",
    "dns-mx",
    "certificate",
    "connection-pool",
    "disk-space",
    "memory",
    "delivery-queue",
)
LEVEL = choice("Trace", "Debug", "Information", "Warning", "Error", "Critical")
CRASH_POINT = choice(
    "before-insert",
    "before-commit",
    "after-commit",
    "after-reply",
    "before-claim",
    "after-notify",
    "before-mark-sent",
    "delivery-before-dot",
    "delivery-after-dot",
    "delivery-before-settle",
)
