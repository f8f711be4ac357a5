"""XCLIENT: a mail proxy of ours tells who its client is (Postfix' XCLIENT_README). Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from relaymail.smtp import reply
from relaymail.smtp.reply import ReplyError

ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
UNKNOWN: Final = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")

_USAGE: Final = "XCLIENT attribute=value ..."
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")


@dataclass(frozen=True, slots=True)
class Client:
    """What is known of the client; ``None``: the proxy did not say."""

    address: str | None
    port: int | None


def parse(argument: str) -> Client:
    """Read the attributes of an XCLIENT command. Raises the refusal.

    A login is not taken over: it would be one without a password.
    """
    address: str | None = None
    port: int | None = None
    words = argument.split()
    if not words:
        raise ReplyError(reply.syntax(_USAGE))
    for word in words:
        name, equals, text = word.partition("=")
        name = name.upper()
        if not equals or name not in ATTRIBUTES or _XTEXT.fullmatch(text) is None:
            raise ReplyError(reply.syntax(_USAGE))
        value = _decode(text)
        if value.upper() in UNKNOWN:
            continue
        if name == "ADDR":
            address = _address(value)
        elif name == "PORT":
            if re.fullmatch(r"[0-9]{1,5}", value) is None or int(value) > 65535:
                raise ReplyError(reply.syntax("XCLIENT PORT=number"))
            port = int(value)
        elif name == "LOGIN":
            raise ReplyError(reply.syntax("XCLIENT without LOGIN: log in with AUTH"))
    return Client(address, port)


def _address(value: str) -> str:
    if value[:5].upper() == "IPV6:":
        value = value[5:]
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ReplyError(reply.syntax("XCLIENT ADDR=IP address")) from None
    # Limits and exemptions know one address of a client
    return str(getattr(address, "ipv4_mapped", None) or address)


def _decode(text: str) -> str:
    return re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)
