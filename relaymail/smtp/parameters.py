"""The parameters of MAIL and RCPT: what each may say, and under which circumstances it is offered.

A check raises the refusal; a parameter that is not listed for its command is unknown (RFC 5321 4.1.1.11).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from relaymail.smtp import reply
from relaymail.smtp.reply import ReplyError

Parameters = Mapping[str, str | None]

LONGEST_HOLD: Final = timedelta(days=30)
"""How far in the future a message may be released (RFC 4865)."""
LONGEST_ENVID: Final = 100
LONGEST_ORCPT: Final = 500
"""Octets, RFC 3461 4.4 and 4.2."""

_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
"""RFC 3461 4: printable ASCII without ``+`` and ``=``, or ``+XX``."""
_NOTIFY: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})


class Offer(Struct, frozen=True):
    """What the session offers at the moment."""

    size: int
    """Octets of the largest message."""
    extended: bool = True
    """The client said EHLO and so may use what its reply lists."""
    authentication: bool = False
    require_tls: bool = False
    hold: bool = False
    """FUTURERELEASE."""
    priority: bool = False
    """MT-PRIORITY."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def check_mail(parameters: Parameters, offer: Offer) -> None:
    """Raise the refusal of the first parameter of MAIL that is unknown or no good."""
    for name, value in parameters.items():
        check = _MAIL.get(name)
        if check is None or not (offer.extended or name in _OF_OLD_CLIENTS):
            raise ReplyError(reply.unsupported_option(name))
        check(value, offer)
    if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters:
        raise ReplyError(reply.syntax("either HOLDFOR or HOLDUNTIL"))


def check_recipient(parameters: Parameters, *, extended: bool) -> None:
    """The same for RCPT."""
    for name, value in parameters.items():
        check = _RCPT.get(name)
        if check is None or not extended:
            raise ReplyError(reply.unsupported_option(name))
        check(value)


def release_time(parameters: Parameters, now: datetime) -> datetime | None:
    """When a message may be let go, ``None`` for at once (RFC 4865)."""
    seconds, until = parameters.get("HOLDFOR"), parameters.get("HOLDUNTIL")
    if seconds is not None:
        return now + timedelta(seconds=int(seconds))
    return None if until is None else _moment(until)


def _size(value: str | None, offer: Offer) -> None:
    if value is None or _NUMBER.fullmatch(value) is None:
        raise ReplyError(reply.syntax("SIZE=number of octets"))
    if int(value) > offer.size:
        raise ReplyError(reply.MESSAGE_TOO_BIG)


def _body(value: str | None, offer: Offer) -> None:
    if value is None or value.upper() not in {"7BIT", "8BITMIME", "BINARYMIME"}:
        raise ReplyError(reply.syntax("BODY=7BIT, BODY=8BITMIME or BODY=BINARYMIME"))


def _smtputf8(value: str | None, offer: Offer) -> None:
    if value is not None:
        raise ReplyError(reply.syntax("SMTPUTF8 takes no value"))


def _auth(value: str | None, offer: Offer) -> None:
    if not offer.authentication:
        raise ReplyError(reply.unsupported_option("AUTH"))
    if value is None or (value != "<>" and _XTEXT.fullmatch(value) is None):
        raise ReplyError(reply.syntax("AUTH=address or AUTH=<>"))


def _ret(value: str | None, offer: Offer) -> None:
    if value is None or value.upper() not in {"FULL", "HDRS"}:
        raise ReplyError(reply.syntax("RET=FULL or RET=HDRS"))


def _envid(value: str | None, offer: Offer) -> None:
    if value is None or len(value) > LONGEST_ENVID or _XTEXT.fullmatch(value) is None:
        raise ReplyError(reply.syntax("ENVID=text"))


def _requiretls(value: str | None, offer: Offer) -> None:
    if not offer.require_tls:
        raise ReplyError(reply.unsupported_option("REQUIRETLS"))
    if value is not None:
        raise ReplyError(reply.syntax("REQUIRETLS takes no value"))


def _holdfor(value: str | None, offer: Offer) -> None:
    if not offer.hold:
        raise ReplyError(reply.unsupported_option("HOLDFOR"))
    if value is None or re.fullmatch(r"[0-9]{1,9}", value) is None:
        raise ReplyError(reply.syntax("HOLDFOR=seconds"))
    if timedelta(seconds=int(value)) > LONGEST_HOLD:
        raise ReplyError(reply.HOLD_TOO_LONG)


def _holduntil(value: str | None, offer: Offer) -> None:
    if not offer.hold:
        raise ReplyError(reply.unsupported_option("HOLDUNTIL"))
    moment = None if value is None else _moment(value)
    if moment is None:
        raise ReplyError(reply.syntax("HOLDUNTIL=date-time of RFC 3339"))
    if moment > offer.now() + LONGEST_HOLD:
        raise ReplyError(reply.HOLD_TOO_LONG)


def _moment(value: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _priority(value: str | None, offer: Offer) -> None:
    if not offer.priority:
        raise ReplyError(reply.unsupported_option("MT-PRIORITY"))
    if value is None or re.fullmatch(r"-?[0-9]", value) is None:
        raise ReplyError(reply.syntax("MT-PRIORITY=number from -9 to 9"))


def _notify(value: str | None) -> None:
    words = (value or "").upper().split(",")
    if words != ["NEVER"] and (not set(words) <= _NOTIFY or len(set(words)) != len(words)):
        raise ReplyError(reply.syntax("NOTIFY=NEVER or some of SUCCESS,FAILURE,DELAY"))


def _orcpt(value: str | None) -> None:
    kind, semicolon, address = (value or "").partition(";")
    if (
        not semicolon
        or len(value or "") > LONGEST_ORCPT
        or re.fullmatch(r"[A-Za-z0-9-]+", kind) is None
        or (_XTEXT.fullmatch(address) is None and not (kind.lower() == "utf-8" and address))
    ):
        raise ReplyError(reply.syntax("ORCPT=address-type;address"))


_MAIL: Final[Mapping[str, Callable[[str | None, Offer], None]]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "AUTH": _auth,
    "RET": _ret,
    "ENVID": _envid,
    "REQUIRETLS": _requiretls,
    "HOLDFOR": _holdfor,
    "HOLDUNTIL": _holduntil,
    "MT-PRIORITY": _priority,
}
_OF_OLD_CLIENTS: Final = frozenset({"SIZE", "BODY"})
"""Sent by some behind HELO, and harmless."""
_RCPT: Final[Mapping[str, Callable[[str | None], None]]] = {"NOTIFY": _notify, "ORCPT": _orcpt}
