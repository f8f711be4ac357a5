"""Character sets by an allow-list: what a message names never reaches Python's codec registry.

The registry also holds ``unicode_escape``, ``zlib``, ``rot13``, ``hex`` and ``idna``, none of them a
character set of mail. Where the label is missing, unknown or US-ASCII the bytes are tried as UTF-8, then
taken as Latin-1, which cannot fail.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator

_UTF16 = "utf-16"
_UTF32 = "utf-32"

# Supersets where the older label is used for them in practice: GB 18030 for GB2312, Windows' pages for Asia's
_CODECS: dict[str, str] = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "unicode-1-1-utf-8": "utf-8",
    "utf-7": "utf-7",
    "unicode-1-1-utf-7": "utf-7",
    "utf-16": _UTF16,
    "ucs-2": _UTF16,
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "utf-32": _UTF32,
    "utf-32le": "utf-32-le",
    "utf-32be": "utf-32-be",
    "latin1": "latin-1",
    "latin-1": "latin-1",
    "l1": "latin-1",
    "cp819": "latin-1",
    "latin2": "iso8859-2",
    "latin5": "iso8859-9",
    "latin9": "iso8859-15",
    "koi8-r": "koi8-r",
    "koi8r": "koi8-r",
    "koi8-u": "koi8-u",
    "koi8-t": "koi8-t",
    "gb2312": "gb18030",
    "gb-2312": "gb18030",
    "gbk": "gb18030",
    "cp936": "gb18030",
    "ms936": "gb18030",
    "windows-936": "gb18030",
    "gb18030": "gb18030",
    "euc-cn": "gb18030",
    "x-gbk": "gb18030",
    "hz-gb-2312": "hz",
    "hz": "hz",
    "big5": "cp950",
    "cn-big5": "cp950",
    "x-x-big5": "cp950",
    "cp950": "cp950",
    "big5-hkscs": "big5hkscs",
    "shift-jis": "cp932",
    "shiftjis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "ms-kanji": "cp932",
    "cp932": "cp932",
    "windows-31j": "cp932",
    "cswindows31j": "cp932",
    "euc-jp": "euc-jp",
    "eucjp": "euc-jp",
    "x-euc-jp": "euc-jp",
    "iso-2022-jp": "iso2022_jp_ext",
    "iso-2022-jp-1": "iso2022_jp_1",
    "iso-2022-jp-2": "iso2022_jp_2",
    "iso-2022-jp-3": "iso2022_jp_3",
    "csiso2022jp": "iso2022_jp_ext",
    "cp50220": "iso2022_jp_ext",
    "euc-kr": "cp949",
    "euckr": "cp949",
    "ks-c-5601-1987": "cp949",
    "ks-c-5601": "cp949",
    "ksc5601": "cp949",
    "ksc-5601": "cp949",
    "korean": "cp949",
    "cp949": "cp949",
    "uhc": "cp949",
    "windows-949": "cp949",
    "johab": "johab",
    "iso-2022-kr": "iso2022_kr",
    "tis-620": "cp874",
    "windows-874": "cp874",
    "cp874": "cp874",
    "ptcp154": "ptcp154",
    "macintosh": "mac-roman",
    "mac": "mac-roman",
    "x-mac-roman": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-mac-ce": "mac-latin2",
    "x-mac-centraleurroman": "mac-latin2",
    "x-mac-greek": "mac-greek",
    "x-mac-turkish": "mac-turkish",
    "x-mac-icelandic": "mac-iceland",
    "visual": "iso8859-8",
    "logical": "iso8859-8",
}
for _n in (*range(1, 12), 13, 14, 15, 16):
    for _label in (f"iso-8859-{_n}", f"iso8859-{_n}", f"iso-8859{_n}", f"8859-{_n}"):
        _CODECS[_label] = "latin-1" if _n == 1 else f"iso8859-{_n}"
for _label in ("iso-8859-6-i", "iso-8859-6-e", "iso-8859-8-i", "iso-8859-8-e"):
    _CODECS[_label] = f"iso8859-{_label[9]}"
for _n in range(1250, 1259):
    for _label in (f"windows-{_n}", f"cp{_n}", f"cp-{_n}", f"win-{_n}", f"x-cp{_n}", f"x-windows-{_n}"):
        _CODECS[_label] = f"cp{_n}"
_IBM = (37, 437, 500, 737, 775, 850, 852, 855, 857, 858, 860, 861, 862, 863, 864, 865, 866, 869, 1026, 1140)
for _n in _IBM:
    for _label in (f"ibm{_n}", f"ibm{_n:03}", f"cp{_n}", f"cp{_n:03}", f"dos-{_n}"):
        _CODECS[_label] = f"cp{_n:03}"


def lookup(label: str | None) -> str | None:
    """The codec for a charset label of a message; ``None`` when it is missing, unknown or US-ASCII."""
    if not label:
        return None
    codec = _CODECS.get(label)
    if codec is None:
        codec = _CODECS.get(label.strip(" \t'\"").lower().replace("_", "-").replace(":", "-"))
    return codec


def guess(data: bytes) -> str:
    """``data`` as UTF-8, or, where it is not, as Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def decode(data: bytes, label: str | None) -> str:
    """``data`` in the charset ``label``; bytes it does not have become U+FFFD. Never raises."""
    codec = lookup(label)
    if codec is None:
        return guess(data)
    try:
        return data.decode(_with_byte_order(codec, data[:4]), "replace")
    except UnicodeError:  # ISO-2022 gives up on some broken escapes, whatever it is told to do with errors
        return guess(data)


def decode_stream(chunks: Callable[[], Iterable[bytes]], label: str | None, limit: int) -> str:
    """As :func:`decode`, of a long text that comes in pieces: at most ``limit`` + 1 characters.

    The one more shows that there was more. ``chunks`` is called again from the start when the text turns out
    not to be UTF-8.
    """
    codec = lookup(label)
    try:
        if codec is not None:
            return _collect(chunks(), codec, "replace", limit)
    except UnicodeError:
        pass  # as in decode
    try:
        return _collect(chunks(), "utf-8", "strict", limit)
    except UnicodeDecodeError:
        return _collect(chunks(), "latin-1", "strict", limit)


def _collect(chunks: Iterable[bytes], codec: str, errors: str, limit: int) -> str:
    pieces: list[str] = []
    length = 0
    for piece in _decoded(iter(chunks), codec, errors):
        pieces.append(piece)
        length += len(piece)
        if length > limit:
            break
    return "".join(pieces)[: limit + 1]


def _decoded(chunks: Iterator[bytes], codec: str, errors: str) -> Iterator[str]:
    first = next(chunks, b"")
    decoder = codecs.getincrementaldecoder(_with_byte_order(codec, first[:4]))(errors)
    yield decoder.decode(first)
    for chunk in chunks:
        yield decoder.decode(chunk)
    yield decoder.decode(b"", True)


def _with_byte_order(codec: str, head: bytes) -> str:
    """UTF-16 and UTF-32 without a byte order mark are big-endian (RFC 2781 4.3), not this processor's."""
    if codec is _UTF16 and head[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16-be"
    if codec is _UTF32 and head not in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32-be"
    return codec
