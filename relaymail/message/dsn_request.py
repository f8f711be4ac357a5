"""What a sender asked to be told of: NOTIFY, RET, ENVID and ORCPT (RFC 3461 4, RFC 6533 3). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
"""What became of a recipient (RFC 3464 2.3.3)."""
Parameters = Mapping[str, str | None]

_WORD: Final[Mapping[Action, str]] = {
    "failed": "FAILURE",
    "delayed": "DELAY",
    "delivered": "SUCCESS",
    "relayed": "SUCCESS",
    "expanded": "SUCCESS",
}
_XCHAR: Final = re.compile(r"\+([0-9A-F]{2})")
_EMBEDDED: Final = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
# RFC 6533 3: what may stand for itself in an address of ASCII characters only
_NO_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")
_LAST_CODE_POINT: Final = 0x10FFFF


def wanted(action: Action, parameters: Parameters) -> bool:
    """Whether the RCPT ``parameters`` of a recipient ask for a report of ``action`` (RFC 3461 4.1).

    Without NOTIFY it is failures and delays. Whom a report would go to is not looked at: the null sender gets
    none whatever it asked for.
    """
    notify = parameters.get("NOTIFY")
    if notify is None:
        return action in ("failed", "delayed")
    return _WORD[action] in notify.upper().split(",")


def wants_all(parameters: Parameters) -> bool:
    """Whether the MAIL ``parameters`` leave it to us to return the whole message with a failure (4.3)."""
    return (parameters.get("RET") or "FULL").upper() != "HDRS"


def envelope_id(parameters: Parameters) -> str | None:
    """ENVID decoded (4.4); left as it came where it decodes to what is not printable."""
    value = parameters.get("ENVID")
    return None if value is None else _decoded(value)


def original_recipient(parameters: Parameters) -> tuple[str, str] | None:
    """ORCPT (4.2): the type of the address, and the address decoded."""
    kind, semicolon, address = (parameters.get("ORCPT") or "").partition(";")
    if not semicolon:
        return None
    return kind, _embedded(address) if kind.lower() == "utf-8" else _decoded(address)


def typed_address(kind: str, address: str, *, utf8: bool) -> str:
    """An address as a field of a report has it: ``rfc822;a@b.example``.

    An internationalized one is of type ``utf-8`` (RFC 6533 3): as it is where ``utf8``, else in ASCII.
    """
    if address.isascii() and kind.lower() != "utf-8":
        return f"{kind};{address}"
    if utf8:
        return f"utf-8;{address}"
    return "utf-8;" + _NO_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", address)


def _decoded(xtext: str) -> str:
    text = _XCHAR.sub(lambda found: chr(int(found[1], 16)), xtext)
    return text if text.isascii() and text.isprintable() else xtext


def _embedded(address: str) -> str:
    def character(found: re.Match[str]) -> str:
        point = int(found[1], 16)
        return chr(point) if point <= _LAST_CODE_POINT else found[0]

    text = _EMBEDDED.sub(character, address)
    return text if text.isprintable() else address
