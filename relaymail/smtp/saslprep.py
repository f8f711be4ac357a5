"""SASLprep (RFC 4013): the one form of names that look the same. Pure."""

from __future__ import annotations

import stringprep
from typing import Final
from unicodedata import ucd_3_2_0

_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)
"""RFC 4013 2.3."""


def saslprep(text: str) -> str:
    """``text`` prepared as a query: code points that Unicode 3.2 did not know are let through (RFC 3454 7).

    :raises ValueError: there is a character in it that may not be (RFC 4013 2.3), or it mixes directions of
        writing (RFC 3454 6).
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    # stringprep is defined on Unicode 3.2
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    if any(prohibits(character) for prohibits in _PROHIBITED for character in prepared):
        raise ValueError("prohibited character")
    if any(map(stringprep.in_table_d1, prepared)) and (
        any(map(stringprep.in_table_d2, prepared))
        or not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1]))
    ):
        raise ValueError("mixed directions of writing")
    return prepared
