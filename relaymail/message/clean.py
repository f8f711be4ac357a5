"""Text that fits a column: no NUL, no lone surrogate, no line break where a header value is meant.

PostgreSQL refuses U+0000 and surrogates, and counts ``character varying(n)`` in code points, as ``len``
does.
"""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"

_LINE_BREAKS = "\t\n\x0b\x0c\r\x85\u2028\u2029"
_SURROGATES = range(0xD800, 0xE000)
_HEADER_TABLE: dict[int, str] = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], REPLACEMENT),
    **dict.fromkeys(_SURROGATES, REPLACEMENT),
    **dict.fromkeys(map(ord, _LINE_BREAKS), " "),
}
_BODY_UNWANTED = re.compile("[\x00\ud800-\udfff]")
# Format characters that turn the reading direction make "exe.pdf" out of "fdp.exe"
_NAME_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_EXTENSION_MAX = 32
_SHORT = 64 * 1024


def header_text(text: str, limit: int) -> str:
    """A header value of at most ``limit`` characters: line breaks and tabs are spaces, controls U+FFFD."""
    text = text.strip(" \t\r\n")
    if not text.isprintable():
        text = text.replace("\r\n", " ").translate(_HEADER_TABLE).strip(" ")
    return text[:limit] if len(text) > limit else text


def body_text(text: str) -> str:
    """A body as a column takes it: line breaks as they came, NUL and lone surrogates U+FFFD."""
    if text.isascii():
        return text.replace("\x00", REPLACEMENT)
    if len(text) <= _SHORT and "\x00" not in text:
        try:
            text.encode("utf-8")  # ten times as fast as a search, while the copy is small
            return text
        except UnicodeEncodeError:
            pass  # the search will replace them
    return _BODY_UNWANTED.sub(REPLACEMENT, text)


def file_name(name: str, limit: int = 500) -> str:
    """The last component of ``name``, without controls, at most ``limit`` long; a cut keeps the extension.

    Empty when nothing usable is left: the caller knows a better name than this function would.
    """
    name = _NAME_UNWANTED.sub("", name.replace("\\", "/")).rstrip("/ ")
    name = name[name.rfind("/") + 1 :].strip(" ")
    if not name.strip(". "):
        return ""
    if len(name) <= limit:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > _EXTENSION_MAX:
        return name[:limit]
    return stem[: limit - len(extension) - 1] + dot + extension
