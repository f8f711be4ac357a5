"""Content-Transfer-Encoding: exact where it is right, forgiving where it is not, in pieces as at once."""

from __future__ import annotations

import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.message import transfer
from relaymail.message.transfer import CHUNK, Encoding

BASE64 = [
    (b"SGVsbG8=", b"Hello"),
    (b"SGVsbG8=\r\n", b"Hello"),
    (b"SGVs\r\nbG8=\r\n", b"Hello"),
    (b"SGVsbG8", b"Hello"),
    (b"SGVsbG8==", b"Hello"),
    (b"SGVsbG8====", b"Hello"),
    (b"S*G-V!s\x00b_G8=", b"Hello"),
    (b"SGVsbG8gV", b"Hello "),
    (b"SGVsbA==bG8=", b"Hello"[:4] + b"lo"),
    (b"SGVsbA==\r\nbw==\r\n", b"Hello"),
    (b"SGVsbG8=\r\n_____\r\nfooter of the list", b"Hello"),
    (b"SGVsbG8=\r\n-- \r\nfooter", b"Hello"),
    (b"", b""),
    (b"====", b""),
    (b"\r\n\r\n", b""),
    (b"S", b""),
    (b"=SGVsbG8=", b"Hello"),
]

QUOTED_PRINTABLE = [
    (b"Gr=C3=BC=C3=9Fe", "Grüße".encode()),
    (b"a=\r\nb=\nc", b"abc"),
    (b"a= \t\r\nb", b"ab"),
    (b"a=\rb=\rc", b"abc"),
    (b"a=3db", b"a=b"),
    (b"a=3Db\r\n", b"a=b\r\n"),
    (b"a=ZZb", b"a=ZZb"),
    (b"a==41", b"a=41"),
    (b"a=\r\n", b"a"),
    (b"a\x00\xff", b"a\x00\xff"),
]


@pytest.mark.parametrize(("data", "expected"), BASE64)
def test_base64_is_decoded_as_far_as_sensible(data: bytes, expected: bytes) -> None:
    assert transfer.decode_base64(data) == expected
    assert b"".join(transfer.decode(data, 0, len(data), "base64")) == expected


@pytest.mark.parametrize(("data", "expected"), QUOTED_PRINTABLE)
def test_quoted_printable_is_decoded_as_far_as_sensible(data: bytes, expected: bytes) -> None:
    assert b"".join(transfer.decode(data, 0, len(data), "quoted-printable")) == expected


@pytest.mark.parametrize(
    ("field", "encoding"),
    [
        (b"base64", "base64"),
        (b" BASE64 ", "base64"),
        (b"base64;", "base64"),
        (b"base64 (of course)", "base64"),
        (b"Quoted-Printable", "quoted-printable"),
        (b"7bit", "identity"),
        (b"8bit", "identity"),
        (b"binary", "identity"),
        (b"x-uuencode", "identity"),
        (b"", "identity"),
        (b";", "identity"),
        (b"base64base64", "identity"),
    ],
)
def test_the_name_of_an_encoding(field: bytes, encoding: str) -> None:
    assert transfer.encoding_of(field) == encoding


def pieces(data: bytes, encoding: Encoding, start: int = 0) -> list[bytes]:
    found = list(transfer.decode(data, start, len(data), encoding))
    assert all(0 < len(piece) <= CHUNK for piece in found)
    return found


def test_long_base64_comes_in_pieces_whatever_the_line_length() -> None:
    body = bytes(range(256)) * 3000
    for encoded in (
        base64.b64encode(body),
        base64.encodebytes(body),
        base64.encodebytes(body)[:-1] + b"\r\n",
    ):
        found = pieces(b"xx" + encoded, "base64", 2)
        assert len(found) > 3
        assert b"".join(found) == body


def test_long_base64_of_padded_lines_is_read_to_its_end() -> None:
    body = bytes(range(200)) * 2000
    encoded = b"".join(base64.b64encode(body[n : n + 50]) + b"\r\n" for n in range(0, len(body), 50))
    assert b"".join(pieces(encoded, "base64")) == body


def test_a_footer_in_a_later_piece_ends_long_base64() -> None:
    body = b"x" * 196608  # its encoding fills the first piece, but for the padding
    encoded = base64.b64encode(body + b"y") + b"\r\n" * 10 + b"-- \r\n" + b"QUJD" * CHUNK
    assert b"".join(pieces(encoded, "base64")) == body + b"y"


def test_long_quoted_printable_is_never_cut_in_an_escape() -> None:
    body = "Ünïcödé = ÄÖÜ\n".encode() * 40_000
    encoded = quopri.encodestring(body)
    assert b"".join(pieces(encoded, "quoted-printable")) == body
    one_line = b"".join(b"=%02X" % byte for byte in body)
    for shift in range(3):
        assert b"".join(pieces(b"a" * shift + one_line, "quoted-printable")) == b"a" * shift + body


def test_identity_is_exact() -> None:
    body = bytes(range(256)) * 3000
    assert b"".join(pieces(body, "identity")) == body


@given(st.binary(), st.integers(1, 20))
def test_base64_of_any_bytes_in_any_lines_is_exact(body: bytes, width: int) -> None:
    encoded = base64.b64encode(body)
    broken = b" \r\n".join(encoded[n : n + width] for n in range(0, len(encoded), width))
    assert transfer.decode_base64(broken) == body
    assert transfer.decode_base64(broken.rstrip(b"=")) == body


@given(
    st.lists(st.sampled_from([b"QUJD", b"Q", b"=", b"==", b"\r\n", b" ", b"-", b"\xff", b"="]), max_size=40)
)
def test_the_short_way_and_the_long_way_agree_on_base64(parts: list[bytes]) -> None:
    data = b"".join(parts)
    in_pieces = b"".join(transfer._base64(data[n : n + 1] for n in range(len(data))))
    assert transfer.decode_base64(data) == in_pieces


@given(
    st.lists(
        st.sampled_from([b"=41", b"=", b"=4", b"a", b"\r\n", b"\n", b" \r\n", b"\r", b"==", b"\xff"]),
        max_size=40,
    )
)
def test_the_short_way_and_the_long_way_agree_on_quoted_printable(parts: list[bytes]) -> None:
    data = b"".join(parts)
    filler = b"x" * 1500 + b"\n"
    long = filler + data
    assert b"".join(transfer._quoted_printable(iter([filler, data]))) == transfer.decode_short(
        long, "quoted-printable"
    )
