"""Input made of the pieces that the checks' readers know, for hypothesis."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from tests.fuzz.run import seeds
from tests.message.test_properties import FRAGMENTS

COMMANDS: Final = [
    *(
        b"EHLO x\r\n",
        b"HELO x\r\n",
        b"MAIL FROM:<a@b.org>\r\n",
        b"MAIL FROM:<>\r\n",
        b"RCPT TO:<c@d.org>\r\n",
    ),
    *(b"DATA\r\n", b"\r\n.\r\n", b".\r\n", b"..\r\n", b".", b"\r\n", b"\n", b"\r", b"RSET\r\n", b"NOOP\r\n"),
    *(
        b"QUIT\r\n",
        b"VRFY x\r\n",
        b"HELP\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN\r\n",
        b"*\r\n",
    ),
    *(
        b"AUTH PLAIN AGEAcmlnaHQ=\r\n",
        b"AUTH LOGIN YQ==\r\n",
        b"cmlnaHQ=\r\n",
        b"AGEAYg==\r\n",
        b"BDAT 5\r\n",
    ),
    *(
        b"BDAT 3 LAST\r\n",
        b"abcde",
        b" SIZE=10",
        b" BODY=8BITMIME",
        b" SMTPUTF8",
        b" RET=FULL",
        b" NOTIFY=NEVER",
    ),
    *(
        b"MAIL FROM:",
        b"RCPT TO:",
        b"<",
        b">",
        b"@",
        b'"',
        b"[127.0.0.1]",
        b"[IPv6:::1]",
        b"@a,@b:",
        b"\\",
        b":",
    ),
    *("ü@exämple.test".encode(), b"xn--", b"-", b"_", b"\0", b"\xff", b"\x16\x03", b"GET / HTTP/1.0\r\n"),
    *(b"HOLDFOR=5", b"HOLDUNTIL=2026-06-02T00:00:00Z", b"MT-PRIORITY=3", b"ORCPT=rfc822;a+2Bb", b"ENVID=+41"),
    *(b"A" * 50, b" ", b"\t", b"=", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"PROXY UNKNOWN\r\n"),
    *(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12), b"Host=a;Port=1;", b"1.02:03:04.5"),
]
"""What commands, and the other lines the grammar knows, are made of."""


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Input for the check ``name``: its seeds, changed or not, and pieces put together."""
    fragments = FRAGMENTS if name == "content" else COMMANDS
    pieces = st.one_of(st.sampled_from(fragments), st.binary(max_size=6))
    made = st.lists(pieces, max_size=40).map(b"".join)
    head = st.binary(min_size=2, max_size=2) if name == "protocol" else st.binary(min_size=1, max_size=1)
    free = made if name == "content" else st.builds(bytes.__add__, head, made)
    changed = st.builds(_splice, st.sampled_from(sorted(seeds(name).values())), st.floats(0, 1), pieces, head)
    return st.one_of(free, changed)


def _splice(seed: bytes, where: float, piece: bytes, head: bytes) -> bytes:
    """A seed with something put into it, and perhaps another setting."""
    at = round(where * len(seed))
    changed = seed[:at] + piece + seed[at:]
    return head + changed[len(head) :] if head[0] & 1 else changed
