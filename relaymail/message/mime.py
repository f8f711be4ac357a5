"""Splits a message into its leaves: offsets into the raw bytes, found in one pass from left to right.

Containers are kept on a stack of our own, at most :attr:`ParseLimits.depth` high; each looks for its
delimiter only within its own part of the message, so that no byte is searched more than ``depth`` times. A
``message/rfc822`` is a leaf: what it holds is another message's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from relaymail.message import headers, parameters
from relaymail.message.encoded_words import WordDecoder
from relaymail.message.headers import Section
from relaymail.message.limits import Budget
from relaymail.message.parameters import Parameters
from relaymail.message.transfer import Encoding, Raw, encoding_of

CONTENT_FIELDS = frozenset((b"content-type", b"content-transfer-encoding", b"content-disposition"))

_BOUNDARY_MAX = 1000
_SEARCH_STEP = 8 * 1024
"""Octets of a search that count as a step."""
# RFC 2046 5.1.1: behind the boundary only white space, up to the end of the line or of the part
_DELIMITER_TAIL = re.compile(rb"(--)?[ \t]*+(?:\r\r?\n|\n|\r|\Z)")


@dataclass(slots=True)
class Leaf:
    """A body part that holds no others: what it says of itself and where its body is."""

    media_type: str | None
    """Lower-case ``type/subtype``; ``None`` when the field is there and cannot be read."""
    parameters: Parameters
    disposition: str | None
    file_name: str | None
    """As it was given: not yet cleaned."""
    encoding: Encoding
    start: int
    end: int
    root: bool
    """Whether it is the whole message's body."""


@dataclass(slots=True)
class _Container:
    """A multipart being read."""

    needle: bytes
    position: int
    """Offset behind the last delimiter; the next part begins here."""
    end: int
    child_type: str
    closed: bool = False


def leaves(raw: Raw, section: Section, end: int, budget: Budget) -> Iterator[Leaf]:
    """The leaves of the message whose header section is ``section`` and whose body ends at ``end``, in order.

    A multipart without a boundary, or whose boundary is nowhere, is one leaf of ``text/plain``. Raises only
    :class:`~.limits.Exhausted`.
    """
    stack: list[_Container] = []
    parts = 1
    found = _entity(raw, section, end, "text/plain", True, budget)
    while True:
        if isinstance(found, Leaf):
            yield found
        elif len(stack) < budget.limits.depth:
            stack.append(found)
        else:
            budget.note(f"depth over {budget.limits.depth}")
        extent = None
        while stack and (extent := _next_part(raw, stack[-1], budget)) is None:
            stack.pop()
        if extent is None:
            return
        if parts == budget.limits.parts:
            budget.note(f"parts over {budget.limits.parts}")
            return
        parts += 1
        start, part_end = extent
        section = headers.scan(raw, start, part_end, CONTENT_FIELDS, budget)
        found = _entity(raw, section, part_end, stack[-1].child_type, False, budget)


def _entity(
    raw: Raw, section: Section, end: int, default_type: str, root: bool, budget: Budget
) -> Leaf | _Container:
    media_type: str | None
    value = section.first(b"content-type")
    if value is None:
        media_type, given = default_type, parameters.NONE
    else:
        media_type, given = parameters.content_type(value, budget)
    if media_type and media_type.startswith("multipart/"):
        container = _container(raw, media_type, given, section.body, end, budget)
        if container is not None:
            return container
        media_type = "text/plain"
    name: str | None = None
    disposition: str | None = None
    value = section.first(b"content-disposition")
    if value is not None:
        disposition, more = parameters.disposition(value, budget)
        name = more.text("filename", WordDecoder(budget))
    if not name and "name" in given:
        name = given.text("name", WordDecoder(budget))
    value = section.first(b"content-transfer-encoding")
    encoding: Encoding = "identity" if value is None else encoding_of(value)
    return Leaf(media_type, given, disposition, name, encoding, section.body, end, root)


def _container(
    raw: Raw, media_type: str, given: Parameters, start: int, end: int, budget: Budget
) -> _Container | None:
    """The multipart with its preamble passed over; ``None`` when it has no part."""
    boundary = (given.octets("boundary") or b"").rstrip(b" \t")
    if not 0 < len(boundary) <= _BOUNDARY_MAX:
        return None
    needle = b"--" + boundary
    first = _delimiter(raw, needle, start, end, budget)
    if first is None:
        return None
    child_type = "message/rfc822" if media_type == "multipart/digest" else "text/plain"
    return _Container(needle, first[1], end, child_type, first[2])


def _next_part(raw: Raw, container: _Container, budget: Budget) -> tuple[int, int] | None:
    """Where the next part begins and ends, without the line end that belongs to the delimiter behind it."""
    if container.closed:
        return None
    start = container.position
    delimiter = _delimiter(raw, container.needle, start, container.end, budget)
    if delimiter is None:
        container.closed = True
        return (start, container.end) if start < container.end else None
    at, container.position, container.closed = delimiter
    if raw[at - 2 : at] == b"\r\n":
        at -= 1
    return start, max(start, at - 1)


def _delimiter(raw: Raw, needle: bytes, start: int, end: int, budget: Budget) -> tuple[int, int, bool] | None:
    """The next delimiter line: its offset, the offset behind it, and whether it closes the multipart."""
    at = raw.find(needle, start, end)
    budget.step(((end if at < 0 else at) - start) // _SEARCH_STEP + 1)
    while at >= 0:
        if at == start or raw[at - 1] in b"\r\n":
            tail = _DELIMITER_TAIL.match(raw, at + len(needle), end)
            if tail is not None:
                return at, tail.end(), tail[1] is not None
        budget.near_delimiter()
        at = raw.find(needle, at + len(needle), end)
    return None
