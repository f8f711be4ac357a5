"""Replies of the next host: read from the stream, bounded, and made harmless (RFC 5321 4.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LINE_OCTETS: Final = 2048
"""What is kept of a line of a reply; RFC 5321 4.5.3.1.5 has 512."""
LINES: Final = 200
"""Most lines of one reply: an EHLO reply has twenty, a wordy refusal thirty."""
REPLY_OCTETS: Final = 64 * 1024
"""Most octets of one reply, those that are not kept included."""
SHOWN_CHARACTERS: Final = 4000
"""Characters of a reply that are shown."""

_LINE: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED: Final = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")

# RFC 5248 2.4, where the code alone says enough; never one that blames the address (5.1.x): that would be a
# guess, and addresses are suppressed for it
_DEFAULTS: Final = {
    421: "4.3.2",
    450: "4.2.0",
    451: "4.3.0",
    452: "4.3.1",
    454: "4.7.0",
    500: "5.5.2",
    501: "5.5.4",
    502: "5.5.1",
    503: "5.5.1",
    504: "5.5.4",
    521: "5.3.2",
    530: "5.7.0",
    535: "5.7.8",
    538: "5.7.11",
    555: "5.5.4",
    556: "5.1.10",
}


class BadReply(Exception):
    """What the host sends is no reply, or too much of one; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RemoteReply:
    """One reply. Nothing in it is a control character."""

    code: int
    """200 to 599."""
    enhanced: str | None
    """The enhanced status code its text begins with (RFC 2034 4), if its class is that of ``code``."""
    lines: tuple[str, ...]
    """The text of each line behind the code and its separator, enhanced code included. At least one,
    :data:`REPLY_OCTETS` of them together at most, before escaping."""

    @property
    def status(self) -> str:
        """The enhanced status code, or what the code alone stands for (RFC 3463)."""
        return self.enhanced or _DEFAULTS.get(self.code) or f"{self.code // 100}.0.0"

    @property
    def exact(self) -> str:
        """The reply as it came, its lines joined by line feeds; clipped to :data:`SHOWN_CHARACTERS`."""
        last = len(self.lines) - 1
        text = "\n".join(f"{self.code}{' ' if n == last else '-'}{line}" for n, line in enumerate(self.lines))
        return text[:SHOWN_CHARACTERS]

    def __str__(self) -> str:
        """In one line: the code once, then the lines; clipped like :attr:`exact`."""
        return f"{self.code} {' '.join(self.lines)}".rstrip()[:SHOWN_CHARACTERS]


class ReplyReader:
    """Cuts what comes into replies, whatever way it is cut into packets.

    A line may end in a bare LF. All lines of a reply must have the same code (RFC 5321 4.2.1). Of a line
    longer than :data:`LINE_OCTETS` the beginning counts: a host that talks too much has answered all the
    same, and what it has taken must not be sent again.
    """

    __slots__ = ("_buffer", "_code", "_lines", "_octets")

    def __init__(self) -> None:
        self._buffer = b""
        self._code = b""
        self._lines: list[bytes] = []
        self._octets = 0

    @property
    def between_replies(self) -> bool:
        """Whether nothing of a next reply is here yet."""
        return not self._buffer and not self._lines

    def feed(self, data: bytes) -> Iterator[RemoteReply]:
        """Take the next bytes; the replies that are complete with them.

        :raises BadReply: they are no reply, behind those that were; nothing more may be fed.
        """
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if self._take(line.removesuffix(b"\r")):
                yield _remote_reply(int(self._code), self._lines)
                self._lines = []
                self._octets = 0
        self._check_length(self._buffer.removesuffix(b"\r"))

    def _take(self, line: bytes) -> bool:
        """Take one line; whether the reply is complete with it."""
        self._check_length(line)
        self._octets += len(line) + 2
        match = _LINE.fullmatch(line[:LINE_OCTETS])
        if match is None:
            raise BadReply(f"what came is no SMTP reply: {shown(line)[:80]!r}")
        if self._lines and match[1] != self._code:
            raise BadReply(
                f"the lines of a reply have the codes {self._code.decode()} and {match[1].decode()}"
            )
        self._code = match[1]
        self._lines.append(match[3] or b"")
        if match[2] != b"-":
            return True
        if len(self._lines) >= LINES or self._octets > REPLY_OCTETS:
            raise BadReply(f"a reply does not end: {len(self._lines)} lines, {self._octets} octets")
        return False

    def _check_length(self, line: bytes) -> None:
        if self._octets + len(line) > REPLY_OCTETS:
            raise BadReply(f"a reply is longer than {REPLY_OCTETS} octets")


def shown(octets: bytes) -> str:
    """Text as it may be shown: UTF-8, everything else and every control character escaped."""
    text = octets.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _remote_reply(code: int, lines: list[bytes]) -> RemoteReply:
    texts = tuple(map(shown, lines))
    match = _ENHANCED.match(texts[0])
    enhanced = match[0] if match is not None and int(match[1]) == code // 100 else None
    return RemoteReply(code, enhanced, texts)
