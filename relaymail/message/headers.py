"""The header section of a message or of a body part: where it ends, and the fields asked for.

Line ends are CRLF, a bare LF, a bare CR, or the ``CR CR LF`` that a twofold conversion makes. The section
ends at the first empty line, at the first line that is no field (RFC 5322 2.2; such a line is taken for the
body, as most servers do), or with the part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from relaymail.message.limits import Budget
from relaymail.message.transfer import Raw

# Atomic groups: a CRLF must never be taken for two line ends
_LINE_END = re.compile(rb"(?>\r\r?\n|\n|\r)")
_EMPTY_LINE = re.compile(rb"(?>\r\r?\n|\n|\r)(?>\r\r?\n|\n|\r)")
_FIELD_NAME = re.compile(rb"[!-9;-~]++")
_WINDOW = 64 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Section:
    """A header section."""

    fields: dict[bytes, list[bytes]]
    """Field bodies by lower-case name, unfolded, in the order they came."""
    end: int
    """Offset behind the last line of the section."""
    body: int
    """Offset of the first octet of the body."""
    hops: int
    """Received: fields."""

    def first(self, name: bytes) -> bytes | None:
        """The first field of that (lower-case) name, stripped; ``None`` when there is none."""
        values = self.fields.get(name)
        return values[0].strip(b" \t") if values else None

    def all(self, name: bytes) -> list[bytes]:
        """Every field of that (lower-case) name, stripped."""
        return [value.strip(b" \t") for value in self.fields.get(name, ())]


def scan(raw: Raw, start: int, end: int, wanted: frozenset[bytes], budget: Budget) -> Section:
    """Read the header section that begins at ``start``; nothing behind ``end`` belongs to it.

    ``wanted`` holds lower-case names; other fields are passed over. Raises only :class:`~.limits.Exhausted`.
    """
    if raw[start : start + 3] == _BOM:
        start += 3
    if opening := _LINE_END.match(raw, start, end):
        return Section({}, start, opening.end(), 0)
    limit = budget.limits.header_bytes
    section_end = raw.find(b"\r\n\r\n", start, min(end, start + _WINDOW))
    most = budget.limits.header_lines
    lines = _pure_lines(raw[start:section_end], most) if 0 <= section_end <= start + limit else None
    if lines is not None:
        body = section_end + 4
    else:
        empty = _EMPTY_LINE.search(raw, start, end)
        section_end, body = empty.span() if empty else (end, end)
        block = raw[start : min(section_end, start + limit)]
        if b"\r" not in block:
            lines = block.split(b"\n", most)
        else:
            lines = _pure_lines(block, most) or _LINE_END.split(block, most)
    if section_end - start > limit:
        budget.note(f"header section over {limit} bytes")
        if len(lines) <= most:
            lines.pop()  # it may be half a line
    fields, hops, odd_line = _fields(lines, wanted, budget)
    if section_end - start > budget.limits.field_bytes:
        _clip(fields, budget)
    if odd_line is not None:
        section_end = body = _line_offset(raw, start, odd_line)
    return Section(fields, section_end, body, hops)


def _pure_lines(block: bytes, most: int) -> list[bytes] | None:
    """The first lines of ``block`` and the rest, ``None`` when other line ends than CRLF are in it."""
    breaks = block.count(b"\r\n")
    if block.count(b"\n") == breaks and block.count(b"\r") == breaks:
        return block.split(b"\r\n", most)
    return None


def _fields(
    lines: list[bytes], wanted: frozenset[bytes], budget: Budget
) -> tuple[dict[bytes, list[bytes]], int, int | None]:
    """The wanted fields, the count of Received: fields, and the number of the first line that is no field."""
    fields: dict[bytes, list[bytes]] = {}
    hops = 0
    values: list[bytes] | None = None  # of the field being read, when it is wanted
    if len(lines) > budget.limits.header_lines:
        budget.note(f"header lines over {budget.limits.header_lines}")
        lines = lines[: budget.limits.header_lines]
    budget.step(len(lines))
    folded: list[bytes] = []
    for number, line in enumerate(lines):
        if line[:1] in b" \t":
            if values is not None:
                folded.append(line)
            continue
        if folded:
            _unfold(values, folded)
        name, colon, value = line.partition(b":")
        name = name.lower()
        if name not in wanted:
            name = name.rstrip(b" \t")
        if colon and name in wanted:
            values = fields.setdefault(name, [])
            values.append(value)
            continue
        values = None
        if colon and name == b"received":
            hops += 1
        elif not colon or not (name.isalpha() or _FIELD_NAME.fullmatch(name)):
            if number == 0 and line.startswith((b"From ", b">From ")):
                continue  # the first line of a mailbox file
            return fields, hops, number
    if folded:
        _unfold(values, folded)
    return fields, hops, None


def _unfold(values: list[bytes] | None, folded: list[bytes]) -> None:
    """RFC 5322 2.2.3: the line breaks go, the white space stays."""
    if values:
        values[-1] += b"".join(folded)
    folded.clear()


def _clip(fields: dict[bytes, list[bytes]], budget: Budget) -> None:
    limit = budget.limits.field_bytes
    for values in fields.values():
        for number, value in enumerate(values):
            if len(value) > limit:
                budget.note(f"header field over {limit} bytes")
                values[number] = value[: _character_border(value, limit)]


def _character_border(value: bytes, at: int) -> int:
    """``at``, or just before the UTF-8 character around it: half of one would make the field Latin-1."""
    for border in range(at, max(at - 4, 0), -1):
        if value[border] & 0xC0 != 0x80:
            return border
    return at


def _line_offset(raw: Raw, start: int, number: int) -> int:
    """The offset of line ``number``, counted from 0 at ``start``."""
    breaks = islice(_LINE_END.finditer(raw, start), number)
    return max((found.end() for found in breaks), default=start)


def text_of(value: bytes) -> str:
    """A field body as text: ASCII or UTF-8 (RFC 6532), else Latin-1. Its encoded words are still encoded."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
