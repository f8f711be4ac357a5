"""Encoded words in header values (RFC 2047), read as mail is written rather than as it should be.

Words are found anywhere (in quoted strings and parameters too, where many programs put them), may hold
spaces, and adjacent words of one charset are joined before decoding, because some programs cut a character
in two.
"""

from __future__ import annotations

import binascii
import re

from relaymail.message import charsets
from relaymail.message.limits import Budget
from relaymail.message.transfer import decode_base64

# The text ends at the first "?": every attempt moves on, and nothing is read twice
_WORD = re.compile(r"=\?([^?\s]{1,64})\?([bBqQ])\?([^?]*+)\?=")


class WordDecoder:
    """Decodes the encoded words of one header field, up to :attr:`ParseLimits.encoded_words` of them."""

    __slots__ = ("_budget", "_left")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._left = budget.limits.encoded_words

    def decode(self, text: str) -> str:
        """``text`` with its encoded words decoded; those over the limit stay as they are."""
        if "=?" not in text:
            return text
        pieces: list[str] = []
        run: list[bytes] = []
        charset = ""
        position = 0
        for match in _WORD.finditer(text):
            if not self._spend():
                break
            between = text[position : match.start()]
            # RFC 2231 5: the language behind an asterisk
            label = match[1].partition("*")[0].lower()
            joined = bool(run) and not between.strip(" \t\r\n")
            if run and not (joined and label == charset):
                pieces.append(charsets.decode(b"".join(run), charset))
                run.clear()
            if not joined:
                pieces.append(between)
            charset = label
            run.append(_payload(match[2], match[3]))
            position = match.end()
        if run:
            pieces.append(charsets.decode(b"".join(run), charset))
        pieces.append(text[position:])
        return "".join(pieces)

    def _spend(self) -> bool:
        if self._left == 0:
            self._budget.note(f"encoded words over {self._budget.limits.encoded_words}")
            return False
        self._left -= 1
        self._budget.step()
        return True


def _payload(encoding: str, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    if encoding in "bB":
        return decode_base64(data)
    return binascii.a2b_qp(data, header=True)
