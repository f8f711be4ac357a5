"""Parts and fields that a report is built of: nothing in them can end a line, a part, or the report."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_WIDTH: Final = 76
_LONGEST_WORD: Final = 900
_CRLF: Final = "\r\n"
# An encoded word has 75 characters at most, "=?utf-8?b??=" and 4 for each 3 octets (RFC 2047 2)
_WORD_OCTETS: Final = 45
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Part:
    """A body part; its transfer encoding follows from its octets unless it is given."""

    content_type: str
    content: bytes
    encoding: str = ""
    description: str = ""

    @property
    def eight_bit(self) -> bool:
        """Whether it has octets above 127."""
        return not self.content.isascii()

    def lines(self) -> bytes:
        """Header and content, ended with CRLF."""
        encoding = self.encoding or ("8bit" if self.eight_bit else "7bit")
        fields = [f"Content-Type: {self.content_type}", f"Content-Transfer-Encoding: {encoding}"]
        if self.description:
            fields.insert(0, f"Content-Description: {self.description}")
        header = _CRLF.join([*fields, "", ""]).encode()
        return header + self.content + (b"" if self.content.endswith(b"\r\n") else b"\r\n")


def multipart(parts: Sequence[Part], seed: str) -> tuple[str, bytes]:
    """A boundary that is in none of the parts, always the same for a ``seed``, and the body made of them."""
    bodies = [part.lines() for part in parts]
    number = 0
    while True:
        boundary = "report-" + hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()[:32]
        mark = f"--{boundary}".encode()
        if not any(mark in body for body in bodies):
            break
        number += 1
    whole = b"".join(mark + b"\r\n" + body + b"\r\n" for body in bodies)
    return boundary, whole + mark + b"--\r\n"


def one_line(text: str, limit: int) -> str:
    """``text`` on one line, at most ``limit`` characters long; what does not print is shown as an escape."""
    shown = text[:limit].strip()
    if not shown.isprintable():
        shown = "".join([_shown(character) for character in shown])
    return shown if len(text) <= limit else shown + " [...]"


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character in "\t\r\n" else character.encode("unicode_escape", "surrogatepass").decode()


def ascii_only(text: str) -> str:
    """``text`` with ``\\x{…}`` for what is not ASCII (RFC 6533 3)."""
    return _BEYOND_ASCII.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", text)


def folded(name: str, lines: Sequence[str]) -> str:
    """A field whose body is given in lines, each of them on one or more lines (RFC 5322 2.2.3)."""
    made: list[str] = []
    room = _WIDTH - len(name) - 2
    for line in lines:
        pieces = list(_wrapped(line, room))
        made += pieces
        room = _WIDTH - 1
    return f"{name}: " + f"{_CRLF} ".join(made)


def _wrapped(line: str, room: int) -> Iterator[str]:
    """Cut at spaces so that pieces fit, the first into ``room`` characters; of words only endless ones."""
    current = ""
    for word in line.split():
        while len(word) > _LONGEST_WORD:
            if current:
                yield current
                current = ""
            yield word[:_LONGEST_WORD]
            word = word[_LONGEST_WORD:]
        if not current:
            current = word
        elif len(current) + 1 + len(word) <= room:
            current += " " + word
        else:
            yield current
            current, room = word, _WIDTH - 1
    if current:
        yield current


def encoded(text: str) -> str:
    """Header text in encoded words where it needs them (RFC 2047), folded."""
    if text.isascii() and "=?" not in text:
        return text
    words: list[str] = []
    current = b""
    for character in text:
        octets = character.encode("utf-8", "replace")
        if len(current) + len(octets) > _WORD_OCTETS:
            words.append(_word(current))
            current = b""
        current += octets
    return f"{_CRLF} ".join([*words, _word(current)])


def _word(octets: bytes) -> str:
    return f"=?utf-8?b?{b64encode(octets).decode()}?="
