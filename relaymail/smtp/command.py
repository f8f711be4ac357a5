"""Command lines: verb and argument, and the arguments of MAIL and RCPT (RFC 5321 4.1.1). Pure."""

from __future__ import annotations

import re
from typing import Final

from relaymail.smtp import reply
from relaymail.smtp.address import Address, AddressError, NonASCIIAddress, parse_path
from relaymail.smtp.reply import ReplyError

Parameters = dict[str, str | None]

_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^= ]+))?")
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_CHUNK: Final = re.compile(r"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)
_HTTP_VERBS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH"}
)


def split(line: bytes) -> tuple[str, str]:
    """The verb in upper case and the argument without the white space around it.

    Raises :exc:`~relaymail.smtp.reply.ReplyError` for what no command can hold: control characters, or bytes
    that are not UTF-8.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ReplyError(reply.UNKNOWN_COMMAND) from None
    verb, _, argument = text.partition(" ")
    if not text.isprintable() and _CONTROL.search(text):
        raise ReplyError(reply.UNKNOWN_COMMAND)
    return verb.upper(), argument.strip(" \t")


def is_tls_hello(first: bytes) -> bool:
    """Whether a session that begins with the octet ``first`` is no SMTP but a TLS or SSL 2 handshake."""
    return first in {b"\x16", b"\x80"}


def is_http(line: bytes) -> bool:
    """Whether the first line of a session is an HTTP request's."""
    return line.split(b" ", 1)[0].decode("latin-1").upper() in _HTTP_VERBS


def mail_argument(argument: str, *, utf8: bool) -> tuple[Address | None, Parameters]:
    """``FROM:<reverse-path> [parameters]``. ``utf8``: the session is ESMTP, so SMTPUTF8 may be among them."""
    path = _after_keyword(argument, "FROM:", "MAIL FROM:<address>")
    try:
        address, rest = parse_path(path, utf8=True)
    except AddressError as error:
        raise ReplyError(reply.bad_sender(str(error))) from None
    parameters = _parameters(rest)
    if address is not None and not str(address).isascii() and not (utf8 and "SMTPUTF8" in parameters):
        raise ReplyError(reply.SMTPUTF8_REQUIRED)
    if address is not None and not address.domain:
        raise ReplyError(reply.bad_sender("the domain is missing"))
    return address, parameters


def recipient_argument(argument: str, *, utf8: bool) -> tuple[Address, Parameters]:
    """``TO:<forward-path> [parameters]``. ``utf8``: this transaction has SMTPUTF8."""
    path = _after_keyword(argument, "TO:", "RCPT TO:<address>")
    try:
        address, rest = parse_path(path, utf8=utf8)
    except NonASCIIAddress:
        raise ReplyError(reply.SMTPUTF8_REQUIRED) from None
    except AddressError as error:
        raise ReplyError(reply.bad_recipient(str(error))) from None
    if address is None:
        raise ReplyError(reply.bad_recipient("the null path is no recipient"))
    return address, _parameters(rest)


def chunk_argument(argument: str) -> tuple[int, bool]:
    """``octets [LAST]`` of BDAT (RFC 3030 2).

    Without the size nobody knows where the chunk ends, so the refusal closes the session.
    """
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise ReplyError(reply.BAD_CHUNK)
    return int(match[1]), match[2] is not None


def _after_keyword(argument: str, keyword: str, usage: str) -> str:
    if argument[: len(keyword)].upper() != keyword:
        raise ReplyError(reply.syntax(usage))
    # A blank behind the colon is against RFC 5321 4.1.2 but sent by old clients; refusing it helps nobody
    path = argument[len(keyword) :].lstrip(" ")
    if not path.startswith("<"):
        raise ReplyError(reply.syntax(usage))
    return path


def _parameters(rest: str) -> Parameters:
    """Parameters behind a path: names in upper case, values as given, ``None`` where there is none."""
    if not rest:
        return {}
    if rest[0] != " ":
        raise ReplyError(reply.syntax("a blank between the address and its parameters"))
    parameters: Parameters = {}
    for word in rest.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise ReplyError(reply.syntax("parameters are NAME or NAME=VALUE"))
        name = match[1].upper()
        if name in parameters:
            raise ReplyError(reply.syntax(f"{name[:40]} only once"))
        parameters[name] = match[2]
    return parameters
