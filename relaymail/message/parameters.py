"""Content-Type and Content-Disposition: a value and its parameters (RFC 2045 5, RFC 2183, RFC 2231).

Values are held as Latin-1 text, one character an octet, until it is known what they are for: a boundary is
octets, a file name is text that may be UTF-8, RFC 2231 or (wrongly, and often) RFC 2047.
"""

from __future__ import annotations

import re
from functools import lru_cache

from relaymail.message import charsets
from relaymail.message.encoded_words import WordDecoder
from relaymail.message.limits import Budget

_NAME = r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++"
_MEDIA_TYPE = re.compile(rf"[ \t]*+({_NAME})[ \t]*+/[ \t]*+({_NAME})")
_FIRST_TOKEN = re.compile(rf"[ \t]*+({_NAME})[ \t]*+(?:;|$)")
# Tried at a known place only. A search would read a long token again from each of its characters
_SEPARATORS = re.compile(r"[; \t]*+")
_PARAMETER = re.compile(r'([^\s=;"]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*+)"|([^;]*+))', re.DOTALL)
_PIECE = re.compile(r"([^*]++)\*(?:([0-9]{1,5})(\*)?)?")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")
_HEX = "0123456789ABCDEFabcdef"
_OCTETS = {f"%{a}{b}".encode(): bytes.fromhex(a + b) for a in _HEX for b in _HEX}
_SMALL = 80


class Parameters:
    """The parameters of one field. Names are lower-case; the first of a name counts."""

    __slots__ = ("_pieces", "_plain")

    def __init__(self) -> None:
        self._plain: dict[str, str] = {}
        self._pieces: dict[str, dict[int, tuple[bool, str]]] = {}

    def add(self, name: str, value: str) -> None:
        """Add a parameter as it is written: ``name``, ``name*``, ``name*0``, ``name*0*``."""
        name = name.lower()
        if "*" in name and (piece := _PIECE.fullmatch(name)):
            extended = piece[2] is None or piece[3] is not None
            self._pieces.setdefault(piece[1], {}).setdefault(int(piece[2] or 0), (extended, value))
        else:
            self._plain.setdefault(name, value)

    def __contains__(self, name: str) -> bool:
        return name in self._plain or name in self._pieces

    def octets(self, name: str) -> bytes | None:
        """The value as octets, without its charset; ``None`` when there is none."""
        found = self._value(name)
        return found and found[0]

    def label(self, name: str) -> str | None:
        """The value as it is written, where it should be a plain token."""
        plain = self._plain.get(name)
        return self.text(name) if plain is None else plain

    def text(self, name: str, words: WordDecoder | None = None) -> str | None:
        """The value as text, in its RFC 2231 charset, else UTF-8 or Latin-1; ``words`` decodes."""
        found = self._value(name)
        if found is None:
            return None
        text = charsets.decode(*found)
        return words.decode(text) if words else text

    def _value(self, name: str) -> tuple[bytes, str | None] | None:
        pieces = self._pieces.get(name)
        if pieces and (0 in pieces or name not in self._plain):
            return _joined(pieces)
        plain = self._plain.get(name)
        return None if plain is None else (plain.encode("latin-1"), None)


NONE = Parameters()
"""No parameters at all."""


def _joined(pieces: dict[int, tuple[bool, str]]) -> tuple[bytes, str | None]:
    """RFC 2231 3 and 4: the pieces in order, as far as none is missing."""
    charset: str | None = None
    values: list[bytes] = []
    number = min(pieces)
    while number in pieces:
        extended, value = pieces[number]
        if extended and not values and value.count("'") >= 2:
            charset, _language, value = value.split("'", 2)
        values.append(_octets(value.encode("latin-1")) if extended else value.encode("latin-1"))
        number += 1
    return b"".join(values), charset


def _octets(value: bytes) -> bytes:
    """RFC 2231 4; a percent sign that escapes nothing stays (and costs nothing, unlike in ``urllib``)."""
    return _PERCENT.sub(lambda escape: _OCTETS[escape[0]], value)


def content_type(value: bytes, budget: Budget) -> tuple[str | None, Parameters]:
    """The media type, lower-case, ``None`` when it is no ``type/subtype``; and its parameters."""
    if len(value) <= _SMALL and b"name" not in value and b"boundary" not in value:
        return _small_content_type(value)
    return _content_type(value, budget)


def _content_type(value: bytes, budget: Budget | None) -> tuple[str | None, Parameters]:
    text = value.decode("latin-1")
    media = _MEDIA_TYPE.match(text)
    name = f"{media[1]}/{media[2]}".lower() if media else None
    return name, _parameters(text, media.end() if media else 0, budget)


# Nearly all text parts share a handful of such fields. Nobody changes a Parameters that is handed out
@lru_cache(maxsize=256)
def _small_content_type(value: bytes) -> tuple[str | None, Parameters]:
    return _content_type(value, None)


def disposition(value: bytes, budget: Budget) -> tuple[str | None, Parameters]:
    """The disposition type, lower-case, ``None`` when there is none; and its parameters."""
    if value in (b"attachment", b"inline"):
        return value.decode("ascii"), NONE
    text = value.decode("latin-1")
    token = _FIRST_TOKEN.match(text)
    return token and token[1].lower(), _parameters(text, token.end(1) if token else 0, budget)


def _parameters(text: str, position: int, budget: Budget | None) -> Parameters:
    """The parameters from ``position`` on; one that cannot be read is passed over, up to a semicolon."""
    parameters = Parameters()
    left = budget.limits.parameters if budget else _SMALL
    while True:
        separators = _SEPARATORS.match(text, position)
        position = separators.end() if separators else position
        if position == len(text):
            break
        match = _PARAMETER.match(text, position)
        if match is None:
            position = text.find(";", position)
            if position < 0:
                break
            continue
        if left == 0:
            if budget:
                budget.note(f"parameters over {budget.limits.parameters}")
            break
        left -= 1
        if budget:
            budget.step()
        position = match.end()
        parameters.add(match[1], _parameter_value(match))
    return parameters


def _parameter_value(match: re.Match[str]) -> str:
    name, quoted, bare = match.groups()
    if quoted is not None:
        return _ESCAPED.sub(r"\1", quoted) if "\\" in quoted else str(quoted)
    value = str(bare).strip(' \t"')
    # "charset=us-ascii (Plain text)" is RFC 2045's own example; "name=my file (1).pdf" is everybody's
    if name.lower().startswith(("name", "filename")):
        return value
    # Not str.split: what Python takes for white space (U+001C, U+00A0) may be all there is
    return value.partition(" ")[0].partition("\t")[0]
