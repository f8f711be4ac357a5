"""What an attempt came to, and what it says about the row and about the endpoint. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
    UserError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.python.failure import Failure

RETRY_AFTER_LIMIT = 5 * 60.0
"""Seconds: how long an endpoint may ask us to stay away at most (RFC 9110 10.2.3)."""


class Verdict(enum.Enum):
    """What an attempt means."""

    SENT = "sent"
    """A 2xx: the API has it."""
    REFUSED = "refused"
    """The API does not want this one: a matter of the row, as far as one can tell."""
    UNAVAILABLE = "unavailable"
    """The endpoint takes nothing at present: no reason to try the other rows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt."""

    verdict: Verdict
    reason: str
    """For the log and the row: never holds what the peer wrote."""
    slow: bool = False
    """Somebody has to mend something first: the next attempt can wait."""
    certain: bool = True
    """Whether one failure is proof that the endpoint is down; a 500 may be this row's fault."""
    retry_after: float = 0.0
    """Seconds the endpoint asked us to wait, at most :data:`RETRY_AFTER_LIMIT`."""


def from_status(code: int, retry_after: float = 0.0) -> Outcome:
    """Judge a status code (RFC 9110 15)."""
    reason = f"HTTP {code} {_phrase(code)}".rstrip()
    if 200 <= code < 300:
        return Outcome(Verdict.SENT, reason)
    if 300 <= code < 400:
        reason += ": redirects are not followed, see Api:BaseUrl"
        return Outcome(Verdict.UNAVAILABLE, reason, slow=True)
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Outcome(Verdict.UNAVAILABLE, f"{reason}: see Internal:ApiKey", slow=True)
    if code == HTTPStatus.TOO_MANY_REQUESTS:
        return Outcome(Verdict.UNAVAILABLE, reason, retry_after=retry_after)
    if code == HTTPStatus.REQUEST_TIMEOUT or not 400 <= code < 500:
        return Outcome(Verdict.UNAVAILABLE, reason, certain=False, retry_after=retry_after)
    return Outcome(Verdict.REFUSED, reason, slow=True)


def from_error(error: BaseException) -> Outcome:
    """Judge an attempt that brought no status code."""
    cause = _cause(error)
    # A kept connection that the server closes just as the request leaves says nothing about the endpoint.
    certain = not isinstance(cause, ConnectionClosed)
    return Outcome(Verdict.UNAVAILABLE, _describe(cause), certain=certain)


def timed_out(seconds: float) -> Outcome:
    """The attempt that was given up because its deadline had come."""
    return Outcome(Verdict.UNAVAILABLE, f"no answer within {seconds:g} s")


def retry_after(value: bytes | None, date: bytes | None) -> float:
    """The seconds of a ``Retry-After`` field (RFC 9110 10.2.3), bounded; 0 where there is none to read.

    A date is counted from the answer's own ``Date`` field, so that no two clocks need to agree.
    """
    text = (value or b"").decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), RETRY_AFTER_LIMIT)
    if not text or not date:
        return 0.0
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(date.decode("latin-1"))
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait / timedelta(seconds=1), 0.0), RETRY_AFTER_LIMIT)


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


def _cause(error: BaseException) -> BaseException:
    """The last error inside twisted.web's wrappers, where TLS and the transport tell what happened."""
    for _ in range(5):
        reasons: Sequence[object] = getattr(error, "reasons", None) or ()
        inner = [reason.value for reason in reasons if isinstance(reason, Failure) and reason.value]
        if not inner:
            break
        # A broken TLS handshake is reported together with the lost connection that it led to.
        telling = [one for one in inner if not isinstance(one, ConnectionClosed)]
        error = (telling or inner)[-1]
    return error


_TEXTS: tuple[tuple[type[BaseException], str], ...] = (
    (DNSLookupError, "the host name could not be resolved"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectTimeout, "no connection in time"),
    (TCPTimedOutError, "no connection in time"),
    (UserError, "no connection in time"),
    (ConnectionAborted, "the answer was too long"),
    (ConnectionClosed, "the connection was closed before an answer"),
    (VerificationError, "TLS: the certificate is not for this host"),
)


def _describe(error: BaseException) -> str:
    if isinstance(error, TLSError):
        # OpenSSL's own constants: (library, function, reason) for each error of its queue
        queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return "TLS: " + ("; ".join(str(entry[-1]) for entry in queue) or "broken off")
    for kind, text in _TEXTS:
        if isinstance(error, kind):
            return text
    if isinstance(error, ConnectError) and error.osError:
        return f"no connection (errno {error.osError})"
    return f"no proper answer ({type(error).__name__})"
