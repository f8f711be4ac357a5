"""From a mail and what a host offers to commands, or to why the host cannot have it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from relaymail.smtp.address import Address, AddressError, ascii_domain, parse_path
from relaymail.smtp.client_capabilities import Capabilities
from relaymail.smtp.client_mail import Conversion, Mail, MailRecipient, Outcome
from relaymail.smtp.client_tls import ClientTLSFacts

_VALUE: Final = re.compile(r"[^\x00-\x20=\x7f-\xa0]+")
"""esmtp-value (RFC 5321 4.1.2, RFC 6531 3.3), generously."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a mail is put to a host."""

    mail: bytes
    """The MAIL command, CRLF included."""
    recipients: Mapping[int, bytes]
    """RCPT commands by index of the recipient, in order; empty: the host cannot have it."""
    refusals: Mapping[int, Outcome]
    """The other recipients."""
    conversion: Conversion | None
    chunks: bool
    """BDAT takes the place of DATA."""
    dsn: bool
    """The host offers DSN, and so takes over the duty to report."""


def plan(mail: Mail, offered: Capabilities, tls: ClientTLSFacts | None) -> Plan:
    """Work out what to say."""
    conversion = _conversion(mail, offered)
    chunks = mail.binary and conversion is None
    utf8 = offered.offers("SMTPUTF8")
    try:
        _check_message(mail, offered, tls)
        sender = _path(mail.reverse_path, utf8, "5.1.7", "sender") if mail.reverse_path else ""
    except _Refused as refused:
        return Plan(b"", {}, dict.fromkeys(range(len(mail.recipients)), refused.outcome), None, False, False)
    paths: dict[int, str] = {}
    refusals: dict[int, Outcome] = {}
    for n, recipient in enumerate(mail.recipients):
        try:
            paths[n] = _path(recipient.address, utf8, "5.1.3", "recipient")
        except _Refused as refused:
            refusals[n] = refused.outcome
    beyond_ascii = not all(path.isascii() for path in (sender, *paths.values()))
    international = beyond_ascii or (mail.utf8_header and "SMTPUTF8" in mail.parameters)
    dsn = offered.offers("DSN")
    words = [f"MAIL FROM:<{sender}>", *_mail_parameters(mail, offered, chunks, international)]
    return Plan(
        _line(words),
        {
            n: _line([f"RCPT TO:<{path}>", *_dsn(mail.recipients[n], offered, international)])
            for n, path in paths.items()
        },
        refusals,
        conversion,
        chunks,
        dsn,
    )


class _Refused(Exception):
    """The host cannot have it."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.outcome = Outcome("failed", status, None, "local", why)


def _conversion(mail: Mail, offered: Capabilities) -> Conversion | None:
    """What the message has to be made of (RFC 6152 3, RFC 3030 3)."""
    if mail.binary:
        if offered.offers("BINARYMIME") and offered.offers("CHUNKING"):
            return None
        return "8bit" if offered.offers("8BITMIME") else "7bit"
    return "7bit" if mail.eight_bit and not offered.offers("8BITMIME") else None


def _check_message(mail: Mail, offered: Capabilities, tls: ClientTLSFacts | None) -> None:
    """:raises _Refused: the host cannot have the message, whoever it is for."""
    limit = offered.size_limit
    if limit is not None and mail.size > limit:
        raise _Refused("5.3.4", f"the message has {mail.size} octets, the host takes {limit}")
    if "REQUIRETLS" in mail.parameters and not (
        offered.offers("REQUIRETLS") and tls is not None and tls.verified_by != "nothing"
    ):
        # RFC 8689 4.2.1
        raise _Refused("5.7.30", "the sender asked for REQUIRETLS, which the host does not offer")
    if mail.utf8_header and "SMTPUTF8" in mail.parameters and not offered.offers("SMTPUTF8"):
        raise _Refused("5.6.7", "the header is internationalized, and the host does not offer SMTPUTF8")


def _path(text: str, utf8: bool, status: str, what: str) -> str:
    """An address as this host can have it.

    :raises _Refused: it cannot, with ``status`` if that is because it is no address.
    """
    try:
        address, rest = parse_path(f"<{text}>", utf8=True)
    except AddressError as error:
        raise _Refused(status, f"the {what} is no address: {error}") from None
    if address is None or rest:
        raise _Refused(status, f"the {what} is no address")
    path = str(address)
    if path.isascii() or utf8:
        return path
    # A domain has a spelling in ASCII, a local part has none (RFC 6531 3.2)
    path = str(Address(address.local, ascii_domain(address.domain)))
    if not path.isascii():
        raise _Refused("5.6.7", f"the {what} is internationalized, and the host does not offer SMTPUTF8")
    return path


def _mail_parameters(mail: Mail, offered: Capabilities, chunks: bool, international: bool) -> list[str]:
    words = []
    if offered.offers("SIZE"):
        words.append(f"SIZE={mail.size}")
    if chunks:
        words.append("BODY=BINARYMIME")
    elif (mail.eight_bit or mail.utf8_header or international) and offered.offers("8BITMIME"):
        words.append("BODY=8BITMIME")
    if international and offered.offers("SMTPUTF8"):
        words.append("SMTPUTF8")
    if "REQUIRETLS" in mail.parameters:
        words.append("REQUIRETLS")
    if offered.offers("DSN"):
        words += _given(mail.parameters, "RET", "ENVID")
    return words


def _dsn(recipient: MailRecipient, offered: Capabilities, international: bool) -> list[str]:
    """NOTIFY and ORCPT (RFC 3461 5.2.1).

    :param international: the host was told SMTPUTF8, without which a command is ASCII (RFC 6531 3.4).
    """
    if not offered.offers("DSN"):
        return []
    words = _given(recipient.parameters, "NOTIFY", "ORCPT")
    if international and offered.offers("SMTPUTF8"):
        return words
    # utf-8-addr-xtext, which is ASCII (RFC 6533 3)
    return ["".join(c if c.isascii() else f"\\x{{{ord(c):X}}}" for c in word) for word in words]


def _given(parameters: Mapping[str, str | None], *names: str) -> list[str]:
    """Those of the parameters that were given and can be said."""
    values = ((name, parameters.get(name)) for name in names)
    return [f"{name}={value}" for name, value in values if value is not None and _VALUE.fullmatch(value)]


def _line(words: list[str]) -> bytes:
    return " ".join(words).encode() + b"\r\n"
