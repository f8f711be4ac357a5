"""Address lists (RFC 5322 3.4 and 4.4): From, To, Cc.

Groups are expanded, comments skipped to any depth without recursion, source routes dropped. One address
that cannot be read is left out and takes no other with it; a missing comma, quote or bracket costs as
little as can be. An address that is given out is one every reader of the columns can parse: a local part
and a domain as whole tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from relaymail.message.clean import header_text
from relaymail.message.encoded_words import WordDecoder
from relaymail.message.limits import Budget

MAX_NAME = 500


class Mailbox(NamedTuple):
    """One address and the name beside it (``None``: no name), both as text."""

    address: str
    name: str | None


_ATEXT = r"[^\x00-\x20\x7f\"(),.:;<>@\[\]\\]++"
_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
_ENCODED_WORD = r"=\?[^?\s]{1,64}\?[bBqQ]\?[^?\s]*+\?="
_TAIL = r"|[ \t\r\n]++|[^\s\"(),:;<>@\[\]\\]++|\[[^\[\]\\]*+\]|."
_ITEM = re.compile(f"{_ENCODED_WORD}|{_QUOTED}{_TAIL}", re.DOTALL)
# Once a quote turned out never to be closed, none is looked for again: each look would read to the end
_ITEM_PLAIN_QUOTES = re.compile(f"{_ENCODED_WORD}{_TAIL}", re.DOTALL)
_COMMENT_MARK = re.compile(r"[()\\]")
_QUOTED_PART = re.compile(_QUOTED, re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

# Two dots and a dot at the end of a local part are not allowed, and in use
_LOCAL = re.compile(rf"{_ATEXT}(?:\.++(?:{_ATEXT})?)*+")
_DOMAIN = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*+|\[[!-Z^-~]++\]")
_PLAIN_ADDRESS = r"[\w!#$%&'*+/=?^`{|}~-]++(?:\.[\w!#$%&'*+/=?^`{|}~-]++)*+@[\w-]++(?:\.[\w-]++)*+"
_PLAIN_MAILBOX = re.compile(
    rf"""[ \t]*+(?:(?:"([^"\\]*+)"[ \t]*+|([^"(),:;<>@\[\]\\]*+))<({_PLAIN_ADDRESS})>|({_PLAIN_ADDRESS}))"""
    r"[ \t]*+(?:,|\Z)",
    re.ASCII,
)


def parse(text: str, budget: Budget) -> list[Mailbox]:
    """The usable addresses of a field body, in order. Raises only :class:`~.limits.Exhausted`."""
    found: list[Mailbox] = []
    position = 0
    if "=?" not in text:
        while position < len(text) and (plain := _PLAIN_MAILBOX.match(text, position)):
            quoted, unquoted, angled, bare = plain.groups()
            found.append(Mailbox(bare or angled, _name(quoted or unquoted)))
            position = plain.end()
            budget.step()
    if position < len(text):
        return _List(text, position, budget, found).read()
    return _limited(found, budget)


def usable(address: str) -> str | None:
    """``address`` without its source route and its needless quotes; ``None`` when it is no address.

    ``postmaster`` needs no domain (RFC 5321 4.1.1.3). Percent signs and bangs are literal.
    """
    if address.startswith("@"):
        address = address.partition(":")[2].strip(" ")
    local, at, domain = address.rpartition("@")
    if not at:
        return address if address.lower() == "postmaster" else None
    domain = domain.rstrip(".")
    if not _DOMAIN.fullmatch(domain):
        return None
    if local.startswith('"'):
        if not _QUOTED_PART.fullmatch(local):
            return None
        plain = _unquote(local)
        if _LOCAL.fullmatch(plain):
            local = plain
        elif not plain.isprintable():
            return None
    elif not _LOCAL.fullmatch(local):
        return None
    address = f"{local}@{domain}"
    if address.isascii():
        return address
    return unicodedata.normalize("NFC", address) if address.isprintable() else None


class _List:
    """Reads a field body from ``position`` on, token by token, from left to right, once."""

    def __init__(self, text: str, position: int, budget: Budget, found: list[Mailbox]) -> None:
        self._text = text
        self._position = position
        self._budget = budget
        self._words = WordDecoder(budget)
        self._found = found
        self._items: list[str] = []  # of the mailbox being read; a run of white space is one " "
        self._at = False  # whether an at sign is among them
        self._angle: list[str] | None = None  # what stands in its angle brackets, while they are open
        self._comment = ""

    def read(self) -> list[Mailbox]:
        limit = self._budget.limits.addresses
        for item in self._split():
            if self._angle is not None:
                self._in_angle(item)
            else:
                self._outside(item)
            if len(self._found) > limit:
                break
        else:
            self._finish()
        return _limited(self._found, self._budget)

    def _split(self) -> Iterator[str]:
        """Words, white space, specials; comments are put aside. Quotes never closed are passed over."""
        text, position, match = self._text, self._position, _ITEM.match
        comments = True
        while found := match(text, position):
            self._budget.step()
            item = found[0]
            position = found.end()
            if item == '"':
                match = _ITEM_PLAIN_QUOTES.match
            elif item == "(":
                end = _comment_end(text, position, self._budget) if comments else -1
                if end < 0:
                    comments = False
                else:
                    self._comment = text[position : end - 1]
                    position = end
                    yield " "
            elif item not in ")\\[]":
                yield " " if item[0] in " \t\r\n" else item

    def _outside(self, item: str) -> None:
        if item == "<":
            self._angle = []
        elif item == "," or item == ";":
            self._finish()
        elif item == ":" and not self._at:
            self._clear()  # it was the name of a group
        elif item != ">":
            self._items.append(item)
            self._at = self._at or item == "@"

    def _in_angle(self, item: str) -> None:
        angle = self._angle
        assert angle is not None
        if item == "<":
            angle.clear()
        elif item == ">" or item == ";" or (item == "," and angle[:1] != ["@"]):
            self._bracketed(angle)
        else:
            angle.append(item)

    def _bracketed(self, angle: list[str]) -> None:
        """A name and an address in brackets are complete."""
        self._angle = None
        if address := usable(" ".join(_glued(angle))):
            name = self._plain("".join(self._items)).strip() or self._plain(self._comment)
            self._found.append(Mailbox(address, _name(name)))
        self._clear()

    def _finish(self) -> None:
        """A comma, or the end: what has no brackets is one address, or, commas missing, several."""
        if self._angle is not None:
            self._bracketed(self._angle)
        elif self._at or len(self._items) <= 3:
            name: list[str] = []
            words = _glued(self._items)
            for word in words:
                address = usable(word) if "@" in word or len(words) == 1 else None
                if address:
                    display = self._plain(" ".join(name)) or self._plain(self._comment)
                    self._found.append(Mailbox(address, _name(display)))
                    name.clear()
                else:
                    name.append(word)
        self._clear()

    def _clear(self) -> None:
        self._items.clear()
        self._at = False
        self._comment = ""

    def _plain(self, phrase: str) -> str:
        """A phrase without its quotes, its encoded words decoded."""
        if '"' in phrase:
            phrase = _QUOTED_PART.sub(lambda quoted: _unquote(quoted[0]), phrase)
        elif "\\" in phrase:
            phrase = _ESCAPED.sub(r"\1", phrase)
        return self._words.decode(phrase)


def _limited(found: list[Mailbox], budget: Budget) -> list[Mailbox]:
    limit = budget.limits.addresses
    if len(found) > limit:
        budget.note(f"addresses over {limit}")
        del found[limit:]
    return found


def _comment_end(text: str, position: int, budget: Budget) -> int:
    """The offset behind the comment that was opened before ``position``; -1 when it is never closed."""
    depth = 1
    escaped = -1
    for mark in _COMMENT_MARK.finditer(text, position):
        budget.step()
        at = mark.start()
        if at == escaped:
            continue
        character = mark[0]
        if character == "\\":
            escaped = at + 1
        elif character == "(":
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return at + 1
    return -1


def _glued(items: list[str]) -> list[str]:
    """The items as words: white space parts them, but not beside a dot or an at sign (RFC 5322 4.4)."""
    words: list[str] = []
    word: list[str] = []
    space = False
    for item in items:
        if item == " ":
            space = True
            continue
        if space and word and not (item[0] in ".@" or word[-1][-1] in ".@"):
            words.append("".join(word))
            word = []
        word.append(item)
        space = False
    if word:
        words.append("".join(word))
    return words


def _unquote(quoted: str) -> str:
    return _ESCAPED.sub(r"\1", quoted[1:-1]) if "\\" in quoted else quoted[1:-1]


def _name(text: str | None) -> str | None:
    return header_text(text, MAX_NAME) or None if text else None
