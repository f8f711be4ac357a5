"""Makes a message fit for a host that does not take 8BITMIME or BINARYMIME (RFC 6152 3, RFC 3030 3).

Body parts that need it are encoded anew, text in quoted-printable, the rest in base64, and their
Content-Transfer-Encoding says so; containers lose theirs. Multiparts and attached messages are gone into.
Header fields stay as they are. The result depends on the bytes alone, not on how they are cut, so that a
message can be read twice, to be signed and to be sent.
"""

from __future__ import annotations

from typing import Literal

Conversion = Literal["7bit", "8bit"]
"""Without octets over 127; or without ``binary`` parts, bare CRs and LFs and NULs."""


class RecodeError(Exception):
    """The message cannot be converted (5.6.3); the text says why."""


class ContentScan:
    """Finds out what a client has to know of a message before it is sent: feed it all of it."""

    size = 0
    """Octets fed."""
    eight_bit = False
    """Octets over 127 in the body."""
    utf8_header = False
    """Octets over 127 in the header section."""
    binary = False
    """A bare CR or LF, or a NUL anywhere: only BDAT could send it as it is."""

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        raise NotImplementedError

    def finish(self) -> None:
        """There are no more."""
        raise NotImplementedError


class Recoder:
    """Converts a message, chunk by chunk. Memory holds a header section and 64 KiB of a part."""

    def __init__(self, conversion: Conversion) -> None:
        raise NotImplementedError

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return those of the converted message that are certain by now.

        :raises RecodeError: it cannot be converted.
        """
        raise NotImplementedError

    def finish(self) -> bytes:
        """The rest. Raises as :meth:`feed` does."""
        raise NotImplementedError
