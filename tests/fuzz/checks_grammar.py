"""The grammar of commands: what is parsed, or refused with a refusal, and nothing else.

The first octet chooses the parser, the rest is its input.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

from relaymail.message import addresses, references
from relaymail.message.limits import Budget, ParseLimits
from relaymail.settings import SettingsError
from relaymail.settings.connection_string import ConnectionString
from relaymail.settings.timespan import format_timespan, parse_timespan
from relaymail.smtp import command, parameters, proxy, sasl, scram, xclient
from relaymail.smtp.address import Address, AddressError, parse_mailbox, parse_path
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.scram_exchange import Scram, Situation
from tests.fuzz import replies

NOW: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
OFFER: Final = parameters.Offer(
    50_000_000, authentication=True, require_tls=True, hold=True, priority=True, now=lambda: NOW
)


def check(data: bytes) -> None:
    """Give ``data`` to the parser that its first octet names."""
    CHECKS[data[0] % len(CHECKS) if data else 0](data[1:])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _check_address(address: Address) -> None:
    """An address that was read prints as itself, and names nothing twice."""
    text = str(address)
    assert not any(unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"} for c in text), text
    assert parse_path(f"<{text}>", utf8=True) == (address, ""), text
    if not address.domain:
        return
    again = parse_mailbox(text)
    assert again == address
    assert again.keys == address.keys
    assert address.host == address.host.lower()
    assert Address(address.local, address.host).host == address.host, address
    for key in address.keys:
        assert key.isprintable() or not text.isprintable(), text
        key.encode()


def _refused(refusal: ReplyError) -> None:
    (answer,) = replies.read(refusal.reply.data)
    assert 400 <= answer.code < 600


def path(data: bytes) -> None:
    """The path of MAIL and RCPT."""
    text = _text(data)
    for utf8 in (False, True):
        try:
            address, rest = parse_path(text, utf8=utf8)
        except AddressError as error:
            Reply(501, "5.1.3", str(error))
            continue
        assert text.endswith(rest)
        if address is not None:
            assert utf8 or str(address).isascii()
            _check_address(address)


def mailbox(data: bytes) -> None:
    """An address without brackets."""
    try:
        address = parse_mailbox(_text(data))
    except AddressError:
        return
    assert address.domain
    _check_address(address)


def line(data: bytes) -> None:
    """A command line."""
    command.is_http(data)
    command.is_tls_hello(data[:1])
    try:
        verb, argument = command.split(data)
    except ReplyError as refusal:
        _refused(refusal)
        return
    assert verb == verb.upper()
    assert argument == argument.strip(" \t")
    assert not set(verb + argument) & {"\r", "\n", "\0", "\x7f", "\x85", "\u2028", "\u2029"}


def arguments(data: bytes) -> None:
    """What follows MAIL and RCPT."""
    try:
        _, argument = command.split(b"X " + data)
    except ReplyError:
        return
    for utf8 in (False, True):
        try:
            sender, given = command.mail_argument(argument, utf8=utf8)
        except ReplyError as refusal:
            _refused(refusal)
        else:
            if sender is not None:
                _check_address(sender)
            _parameters(given)
        try:
            recipient, given = command.recipient_argument(argument, utf8=utf8)
        except ReplyError as refusal:
            _refused(refusal)
        else:
            assert utf8 or str(recipient).isascii()
            _check_address(recipient)
            _parameters(given)


def _parameters(given: command.Parameters) -> None:
    assert all(name == name.upper() and name.isascii() for name in given)
    try:
        parameters.check_mail(given, OFFER)
    except ReplyError as refusal:
        _refused(refusal)
    else:
        until = parameters.release_time(given, NOW)
        assert until is None or until.astimezone(UTC) <= NOW + parameters.LONGEST_HOLD
    try:
        parameters.check_recipient(given, extended=True)
    except ReplyError as refusal:
        _refused(refusal)


class _Session:
    """Knows one user, with SCRAM keys that nobody has."""

    async def scram_salting(self, login: str) -> scram.Salting:
        login.encode()
        return scram.Salting(b"salt", 4096)

    async def scram_key(self, login: str, fits: Callable[[bytes], bool]) -> scram.KeyFound:
        assert not fits(bytes(scram.KEY_OCTETS))
        return scram.KeyFound(bytes(scram.KEY_OCTETS), lambda: None)


def authentication(data: bytes) -> None:
    """SASL: the first octet is the mechanism, the lines are the responses, ``%`` the server's nonce."""
    session: Any = _Session()
    situation = Situation(session, "id", lambda kind: b"binding", True)
    mechanisms: list[Any] = [
        sasl.Login(),
        sasl.Plain(),
        Scram(situation, plus=False),
        Scram(situation, plus=True),
    ]
    mechanism = mechanisms[data[0] % len(mechanisms) if data else 0]
    nonce = b""
    for steps, line in enumerate((None, *data[1:].split(b"\n"))):
        assert steps <= 5
        try:
            response = None if line is None else sasl.decode(line).replace(b"%", nonce)
            step = mechanism.respond(response)
            found = step if isinstance(step, sasl.Challenge | sasl.Credentials) else _result(step)
        except ReplyError as refusal:
            _refused(refusal)
            return
        if isinstance(found, sasl.Credentials):
            found.login.encode()
            assert repr(found) == f"Credentials(login={found.login!r})"
        if not isinstance(found, sasl.Challenge):
            return
        if found.text.startswith(b"r="):
            nonce = found.text[2:].partition(b",")[0]


def _result(step: Awaitable[sasl.Challenge | None]) -> sasl.Challenge | None:
    """What comes of a step that never has to wait here. Raises its refusal."""
    awaiting = step.__await__()
    try:
        next(awaiting)
    except StopIteration as done:
        result: sasl.Challenge | None = done.value
        return result
    raise AssertionError("it waits")


def scram_messages(data: bytes) -> None:
    """Both messages of a SCRAM client, one line each, read for themselves."""
    opening, _, final = data.partition(b"\n")
    try:
        first = scram.client_first(opening)
        scram.check_binding(first, plus=False, plus_offered=True)
        answer = scram.server_first(first, scram.Salting(b"salt", 4096), "nonce")
        scram.client_final(final, first, answer, b"").server_final(bytes(32))
    except scram.ScramError:
        pass


def further_arguments(data: bytes) -> None:
    """What follows BDAT and XCLIENT."""
    try:
        _, argument = command.split(b"X " + data)
    except ReplyError:
        return
    try:
        size, _ = command.chunk_argument(argument)
        assert 0 <= size < 10**20
    except ReplyError as refusal:
        _refused(refusal)
    try:
        client = xclient.parse(argument)
    except ReplyError as refusal:
        _refused(refusal)
        return
    assert client.address is None or str(ip_address(client.address)) == client.address
    assert client.port is None or 0 <= client.port <= 65535


def proxy_header(data: bytes) -> None:
    """The PROXY protocol: what is behind a header changes nothing, and its beginning is no error."""
    try:
        header = proxy.parse_header(data)
    except proxy.ProxyError:
        return
    if header is None:
        assert len(data) < proxy.LONGEST_V2
        return
    assert len(data) >= header.length
    whole = data[: header.length]
    assert proxy.parse_header(whole) == header
    assert proxy.parse_header(whole + b"EHLO x\r\n") == header
    for cut in {0, 1, header.length // 2, header.length - 1}:
        assert proxy.parse_header(whole[:cut]) is None
    if header.client is not None:
        assert 0 <= header.client[1] <= 65535


def reply_text(data: bytes) -> None:
    """Whatever a client sent, in a reply."""
    replies.read(Reply(550, "5.7.1", _text(data)[:40]).data)


def header_addresses(data: bytes) -> None:
    """Address fields of a message: what is given out can be read again as the same."""
    for text in (_text(data), data.decode("latin-1")):
        for found in addresses.parse(text, _budget()):
            (again,) = addresses.parse(f"<{found.address}>", _budget())
            assert again.address == found.address
            assert found.name is None or (found.name and len(found.name) <= addresses.MAX_NAME)


def ids(data: bytes) -> None:
    """Message-ID, In-Reply-To, References."""
    text = _text(data)
    found = references.message_id(text)
    if found is not None:
        assert 0 < len(found) <= references.MAX_ID
        assert references.message_id(f"<{found}>") == found
    for each, limit in (
        (references.in_reply_to(text), references.MAX_ID),
        (references.references(text), references.MAX_REFERENCES),
    ):
        assert each is None or (0 < len(each) <= limit and not set(each) & {"\r", "\n", "\0"})


def settings(data: bytes) -> None:
    """Connection strings and time spans."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        string = ConnectionString.parse(text)
    except SettingsError:
        pass
    else:
        string.parameters()
        string.redacted()
    try:
        seconds = parse_timespan(text)
    except SettingsError:
        return
    assert seconds >= 0
    assert abs(parse_timespan(format_timespan(seconds)) - seconds) <= 1e-4


def _budget() -> Budget:
    return Budget(ParseLimits(), lambda: 0.0)


CHECKS: Final[tuple[Callable[[bytes], None], ...]] = (
    path,
    mailbox,
    line,
    arguments,
    authentication,
    proxy_header,
    reply_text,
    header_addresses,
    ids,
    settings,
    scram_messages,
    further_arguments,
)
