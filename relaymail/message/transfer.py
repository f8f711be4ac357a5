"""Content-Transfer-Encoding (RFC 2045 6): exact bytes, in pieces, and forgiving where the encoding is broken.

- base64: bytes outside the alphabet are skipped and missing padding is forgiven. A padding ends a run; what
  follows is read as a further run (some programs pad every line) up to the first byte that is neither
  base64 nor white space (some lists append a footer in clear).
- quoted-printable: escapes that are none stay as they are, a soft break may have white space behind its
  ``=``.
- everything else is the identity.
"""

from __future__ import annotations

import binascii
import mmap
import re
from collections.abc import Iterator
from typing import Literal, TypeAlias

Encoding: TypeAlias = Literal["base64", "quoted-printable", "identity"]
Raw: TypeAlias = bytes | mmap.mmap

CHUNK = 256 * 1024
"""Octets read at a time; what is yielded is never longer."""

_LINE_KEPT = 1024
"""Octets of an unfinished line that wait for the next chunk."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NO_BASE64 = bytes(sorted(set(range(256)) - set(_ALPHABET) - {ord("=")}))
_CLEAR_TEXT = re.compile(rb"[^A-Za-z0-9+/=\s]")
_BARE_CR_BREAK = re.compile(rb"=\r(?!\n)")
_PADDED_BREAK = re.compile(rb"=[ \t]++(?=[\r\n])")


def encoding_of(value: bytes) -> Encoding:
    """The encoding a Content-Transfer-Encoding field names; unknown ones are the identity."""
    name = value.strip().lower()
    if name == b"base64":
        return "base64"
    if name == b"quoted-printable":
        return "quoted-printable"
    words = re.split(rb"[\s;(]", name, maxsplit=1)
    if words[0] and words[0] != name:
        return encoding_of(words[0])
    return "identity"


def decode(raw: Raw | memoryview, start: int, end: int, encoding: Encoding) -> Iterator[bytes]:
    """The decoded bytes of ``raw[start:end]`` in pieces of 1 to :data:`CHUNK` octets. Never raises."""
    if end - start <= CHUNK:
        whole = decode_short(bytes(raw[start:end]), encoding)
        return iter((whole,) if whole else ())
    chunks = (bytes(raw[at : min(at + CHUNK, end)]) for at in range(start, end, CHUNK))
    if encoding == "base64":
        return _base64(chunks)
    if encoding == "quoted-printable":
        return _quoted_printable(chunks)
    return chunks


def decode_short(data: bytes, encoding: Encoding) -> bytes:
    """All of a short body at once, by the same rules. Never raises."""
    if encoding == "base64":
        return decode_base64(data)
    return _quoted(data) if encoding == "quoted-printable" else data


def decode_base64(data: bytes) -> bytes:
    """A short base64 text at once, by the same rules. Never raises."""
    text = data.translate(None, _NO_BASE64)
    if len(text) & 3 == 0 and text.find(b"=") in (-1, len(text) - 1, len(text) - 2):
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            pass  # "=A" at the end: not as short as that
    return b"".join(_base64(iter((data,))))


def _base64(chunks: Iterator[bytes]) -> Iterator[bytes]:
    carry = b""
    for text in _base64_text(chunks):
        data = carry + text
        if b"=" in data:
            *runs, carry = data.split(b"=")
            piece = b"".join([_run(run) for run in runs if len(run) > 1])
        else:
            whole = len(data) & ~3
            carry = data[whole:]
            piece = binascii.a2b_base64(data[:whole])
        if piece:
            yield piece
    if tail := _run(carry):
        yield tail


def _base64_text(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Only the alphabet and the padding, and nothing from the first clear text behind a padding on."""
    padded = False
    for chunk in chunks:
        at = 0 if padded else chunk.find(b"=")
        if at >= 0:
            padded = True
            if clear := _CLEAR_TEXT.search(chunk, at):
                yield chunk[: clear.start()].translate(None, _NO_BASE64)
                return
        yield chunk.translate(None, _NO_BASE64)


def _run(run: bytes) -> bytes:
    """One run of the alphabet, its padding supplied; six bits left over alone are no byte."""
    over = len(run) & 3
    if over == 0:
        return binascii.a2b_base64(run)
    if over == 1:
        return binascii.a2b_base64(run[:-1])
    return binascii.a2b_base64(run + b"=="[: 4 - over])


def _quoted_printable(chunks: Iterator[bytes]) -> Iterator[bytes]:
    carry = b""
    for chunk in chunks:
        data = carry + chunk
        cut = _safe_cut(data)
        carry = data[cut:]
        if piece := _quoted(data[:cut]):
            yield piece
    if tail := _quoted(carry):
        yield tail


def _safe_cut(data: bytes) -> int:
    """Where ``data`` may be cut without cutting an escape: behind a line, or before an ``=`` near the end."""
    cut = data.rfind(b"\n") + 1
    if len(data) - cut <= _LINE_KEPT:
        return cut
    near = data.rfind(b"=", len(data) - _LINE_KEPT)
    return len(data) if near < 0 else near


def _quoted(data: bytes) -> bytes:
    # binascii takes "=\r" for a soft break up to the next LF, however far, and allows no blanks behind "="
    if b"= " in data or b"=\t" in data:
        data = _PADDED_BREAK.sub(b"=", data)
    if data.count(b"=\r") != data.count(b"=\r\n"):
        data = _BARE_CR_BREAK.sub(b"=\n", data)
    return binascii.a2b_qp(data)
