"""Messages made fit for hosts that take no 8-bit or binary mail."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.message.recode import HEADER_OCTETS, LOOK, Conversion, RecodeError, Recoder
from tests.message.build import lines


def recoded(raw: bytes, conversion: Conversion = "7bit", size: int = 1 << 30) -> bytes:
    recoder = Recoder(conversion)
    pieces = [recoder.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
    return b"".join(pieces) + recoder.finish()


def parsed(raw: bytes) -> Message:
    return email.message_from_bytes(raw, policy=email.policy.compat32)


def leaves(message: Message) -> list[tuple[str, bytes]]:
    """Type and decoded content of each leaf, in order."""
    found = []
    for part in message.walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append((part.get_content_type(), content))
    return found


UMLAUTS = "Grüße aus München, wo die Sonne über allen Häusern steht und niemand arbeiten mag"


def text_part(*body: str, encoding: str = "8bit", charset: str = "utf-8") -> bytes:
    return lines(
        f"Content-Type: text/plain; charset={charset}", f"Content-Transfer-Encoding: {encoding}", "", *body
    )


class TestText:
    def test_becomes_quoted_printable(self) -> None:
        raw = lines("Subject: x", "MIME-Version: 1.0") + text_part(UMLAUTS, "a = b ", ".", "From me")
        done = recoded(raw)
        assert done.isascii()
        assert parsed(done)["Content-Transfer-Encoding"] == "quoted-printable"
        assert parsed(done)["Content-Type"] == "text/plain; charset=utf-8"
        assert leaves(parsed(done)) == leaves(parsed(raw))
        assert max(map(len, done.split(b"\r\n"))) <= 76

    def test_becomes_base64_where_that_is_shorter(self) -> None:
        raw = lines("MIME-Version: 1.0") + text_part("Привет, мир")
        done = recoded(raw)
        assert parsed(done)["Content-Transfer-Encoding"] == "base64"
        assert leaves(parsed(done)) == leaves(parsed(raw))

    def test_that_is_ascii_stays(self) -> None:
        raw = lines("MIME-Version: 1.0") + text_part("a = b", encoding="7bit")
        assert recoded(raw) == raw
        assert recoded(raw, "8bit") == raw
        called = raw.replace(b"7bit", b"8bit")
        assert recoded(called) == raw
        assert recoded(called, "8bit") == called

    def test_that_is_encoded_stays(self) -> None:
        raw = lines("MIME-Version: 1.0") + text_part("a =C3=A4 =", "b", encoding="Quoted-Printable")
        assert recoded(raw) == raw
        raw = lines("MIME-Version: 1.0") + text_part("YWJj", encoding="base64")
        assert recoded(raw) == raw

    def test_that_is_encoded_badly_is_mended(self) -> None:
        done = recoded(lines("MIME-Version: 1.0") + text_part("ä =3D", encoding="quoted-printable"))
        assert done.endswith(b"\r\n\r\n=C3=A4 =3D\r\n")
        done = recoded(lines("MIME-Version: 1.0") + text_part("YW\xe4Jj", encoding="base64"))
        assert done.endswith(b"\r\n\r\nYWJj\r\n")

    @pytest.mark.parametrize(
        ("body", "charset"), [(UMLAUTS.encode(), "utf-8"), (UMLAUTS.encode("latin-1"), "unknown-8bit")]
    )
    def test_that_says_nothing_of_mime_is_given_the_fields(self, body: bytes, charset: str) -> None:
        done = recoded(b"Subject: x\r\n\r\n" + body + b"\r\n")
        assert done.startswith(
            b"Subject: x\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: text/plain; charset=" + charset.encode() + b"\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        )
        assert leaves(parsed(done))[0][1] == body + b"\r\n"

    def test_header_fields_stay_as_they_are(self) -> None:
        fields = lines("Subject: grün", "X-Long: a", "\tb", "Content-Type: text/plain;", " charset=utf-8")
        header, body = recoded(fields + "\r\nä\r\n".encode()).split(b"\r\n\r\n", 1)
        assert header.startswith(fields)
        assert body.isascii()

    def test_a_folded_encoding_field_is_replaced_whole(self) -> None:
        raw = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding:\r\n 8bit\r\nX: y\r\n\r\n\xc3\xa4\r\n"
        assert recoded(raw).split(b"\r\n\r\n")[0] == (
            b"MIME-Version: 1.0\r\nX: y\r\nContent-Transfer-Encoding: base64"
        )

    def test_a_body_without_a_header(self) -> None:
        done = recoded("hällo, a line without a colon that is none of a header\r\n".encode())
        assert done.isascii()
        assert (
            leaves(parsed(done))[0][1]
            == "hällo, a line without a colon that is none of a header\r\n".encode()
        )

    @pytest.mark.parametrize("length", [4095, 4096, 4097, 8192, 8193, 100_000])
    def test_a_long_line_is_broken_softly(self, length: int) -> None:
        body = "".join("ä" if n % 40 == 0 else "x" for n in range(length))
        raw = lines("MIME-Version: 1.0") + text_part("short ä", body, "short")
        done = recoded(raw)
        assert max(map(len, done.split(b"\r\n"))) <= 76
        assert leaves(parsed(done)) == leaves(parsed(raw))
        assert recoded(raw, size=1000) == done


class TestOtherContent:
    octets = bytes(range(256)) * 40 + b"\r\n\r\n.\r\n\n\r"

    @pytest.mark.parametrize("conversion", ["7bit", "8bit"])
    def test_binary_becomes_base64_and_stays_what_it_was(self, conversion: Conversion) -> None:
        raw = (
            lines("MIME-Version: 1.0", "Content-Type: image/png", "Content-Transfer-Encoding: binary", "")
            + self.octets
        )
        done = recoded(raw, conversion)
        assert done.isascii()
        assert parsed(done).get_payload(decode=True) == self.octets
        assert max(map(len, done.split(b"\r\n"))) <= 76
        assert done.endswith(b"\r\n")

    def test_binary_text_keeps_its_line_ends(self) -> None:
        head = lines("MIME-Version: 1.0", "Content-Type: text/plain", "Content-Transfer-Encoding: binary", "")
        assert parsed(recoded(head + b"a\nb\r\n", "8bit")).get_payload(decode=True) == b"a\nb\r\n"

    @pytest.mark.parametrize("conversion", ["7bit", "8bit"])
    def test_binary_text_with_a_long_line_is_quoted(self, conversion: Conversion) -> None:
        head = lines("MIME-Version: 1.0", "Content-Type: text/plain", "Content-Transfer-Encoding: binary", "")
        body = b"x" * 999 + b"\r\n"
        made = recoded(head + body, conversion)
        assert max(map(len, made.split(b"\r\n"))) <= 76
        assert leaves(parsed(made)) == [("text/plain", body)]

    def test_eight_bit_stays_where_only_binary_has_to_go(self) -> None:
        raw = lines("MIME-Version: 1.0") + text_part(UMLAUTS)
        assert recoded(raw, "8bit") == raw

    def test_a_long_part_is_encoded_for_what_may_come(self) -> None:
        raw = (
            lines("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "")
            + b"x" * 70
            + b"\r\n" * LOOK
            + b"\xc3\xa4\r\n"
        )
        done = recoded(raw)
        assert done.isascii()
        assert leaves(parsed(done)) == leaves(parsed(raw))


class TestContainers:
    def test_multiparts_are_gone_into(self) -> None:
        raw = lines(
            "MIME-Version: 1.0",
            'Content-Type: multipart/mixed; boundary="outer"',
            "Content-Transfer-Encoding: 8bit",
            "",
            "prämble",
            "--outer",
            "Content-Type: multipart/alternative; boundary=inner",
            "",
            "--inner",
            text_part(UMLAUTS)[:-2],
            "--inner",
            "Content-Type: text/html",
            "",
            "<b>plain</b>",
            "--inner--",
            "--outer \t",
            "Content-Type: application/octet-stream",
            "Content-Transfer-Encoding: binary",
            "",
            b"\0\xff\n",
            "--outer--",
            "epilögue",
        )
        done = recoded(raw)
        assert done.isascii()
        assert b"Content-Transfer-Encoding: 8bit" not in done
        before, after = parsed(raw), parsed(done)
        assert [part.get_content_type() for part in after.walk()] == (
            [part.get_content_type() for part in before.walk()]
        )
        assert leaves(after) == leaves(before)
        assert after["Content-Transfer-Encoding"] == "7bit"
        assert b"pr??mble" in done
        assert b"epil??gue" in done
        assert parsed(recoded(raw, "8bit"))["Content-Transfer-Encoding"] == "8bit"

    def test_attached_messages_are_gone_into(self) -> None:
        raw = lines(
            "MIME-Version: 1.0",
            "Content-Type: message/rfc822",
            "Content-Transfer-Encoding: 8bit",
            "",
            "Subject: inner",
            "MIME-Version: 1.0",
            text_part(UMLAUTS)[:-2],
        )
        done = recoded(raw)
        assert done.isascii()
        assert parsed(done)["Content-Transfer-Encoding"] == "7bit"
        assert leaves(parsed(done)) == leaves(parsed(raw))

    def test_parts_of_a_digest_are_messages(self) -> None:
        raw = lines(
            "MIME-Version: 1.0",
            "Content-Type: multipart/digest; boundary=d",
            "",
            "--d",
            "",
            "Subject: one",
            "",
            UMLAUTS,
            "--d--",
        )
        done = recoded(raw)
        assert done.isascii()
        assert b"Subject: one\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" in done

    def test_a_part_without_anything(self) -> None:
        raw = lines(
            "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "", "--b", "--b", "", "--b--"
        )
        done = recoded(raw)
        assert [part.get_content_type() for part in parsed(done).walk()] == (
            ["multipart/mixed", "text/plain", "text/plain"]
        )

    def test_a_multipart_that_does_not_end(self) -> None:
        raw = lines("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "", "--b", "", UMLAUTS)
        done = recoded(raw)
        assert done.isascii()
        assert leaves(parsed(done)) == leaves(parsed(raw))

    def test_an_inner_part_ends_with_the_outer_one(self) -> None:
        raw = lines(
            "MIME-Version: 1.0",
            "Content-Type: multipart/mixed; boundary=o",
            "",
            "--o",
            "Content-Type: multipart/mixed; boundary=i",
            "",
            "--i",
            "",
            UMLAUTS,
            "--o",
            "",
            UMLAUTS,
            "--o--",
        )
        done = recoded(raw)
        assert done.isascii()
        assert leaves(parsed(done)) == leaves(parsed(raw))

    def test_what_only_looks_like_a_delimiter_is_content(self) -> None:
        raw = lines(
            "MIME-Version: 1.0",
            "Content-Type: multipart/mixed; boundary=b",
            "",
            "--b",
            "",
            "--bb",
            " --b",
            "--",
            "--b x",
            "--b" + "y" * 3000,
            UMLAUTS,
            "--b--",
        )
        done = recoded(raw)
        assert leaves(parsed(done)) == leaves(parsed(raw))


class TestLimits:
    def test_depth(self) -> None:
        nested = b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(101)
        )
        with pytest.raises(RecodeError, match="100"):
            recoded(nested + b"\r\n\xff")

    def test_attached_messages_have_no_depth(self) -> None:
        raw = b"Content-Type: message/rfc822\r\n\r\n" * 5000 + b"\r\n\xff"
        assert recoded(raw).isascii()

    def test_parts(self) -> None:
        raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 10_001
        with pytest.raises(RecodeError, match="10000"):
            recoded(raw)

    def test_header(self) -> None:
        with pytest.raises(RecodeError, match="header"):
            recoded(b"A: b\r\n" * (HEADER_OCTETS // 6 + 1))
        with pytest.raises(RecodeError, match="header"):
            recoded(b"A: " + b"b" * HEADER_OCTETS + b"\r\n")
        with pytest.raises(RecodeError, match="header"):
            recoded(b"A: " + b"b" * (2 * HEADER_OCTETS), size=1000)

    def test_a_multipart_without_parts_is_nobodys_preamble(self) -> None:
        head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        assert recoded(head + b"ascii\r\n") == head + b"ascii\r\n"
        with pytest.raises(RecodeError):
            recoded(head + b"\xff\r\n")


HEADERS = [
    "MIME-Version: 1.0",
    "Content-Type: multipart/mixed; boundary=a",
    "Content-Type: multipart/alternative; boundary=b",
    "Content-Type: multipart/digest; boundary=c",
    "Content-Type: message/rfc822",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Type: image/png",
    "Content-Type: nonsense",
    "Content-Transfer-Encoding: 8bit",
    "Content-Transfer-Encoding: binary",
    "Content-Transfer-Encoding: base64",
    "Content-Transfer-Encoding: quoted-printable",
    " folded ä",
    "Subject: x",
]
OTHERS = [
    "",
    "",
    "--a",
    "--b",
    "--c",
    "--a--",
    "--b--",
    "--c--",
    "--a ",
    "-",
    "--",
    "ä",
    "YWJj",
    "=C3",
    "x" * 90,
]
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""])
JUNK = st.lists(
    st.tuples(st.one_of(st.sampled_from(HEADERS), st.sampled_from(OTHERS)).map(str.encode), ENDS), max_size=30
).map(lambda found: b"".join(line + end for line, end in found))


class TestSigned:
    @staticmethod
    def signed(part: bytes) -> bytes:
        signature = lines("Content-Type: application/pgp-signature", "", "-----BEGIN PGP SIGNATURE-----")
        return (
            lines(
                "MIME-Version: 1.0",
                'Content-Type: multipart/signed; boundary="s"; protocol="application/pgp-signature"',
                "",
                "--s",
            )
            + part
            + lines("--s")
            + signature
            + lines("--s--")
        )

    def test_what_can_be_sent_as_it_is_stays_to_the_octet(self) -> None:
        long = ["line after line"] * (2 * LOOK // 17)
        for part in (
            text_part(*long, encoding="7bit"),
            text_part("ASCII, whatever it is called", encoding="8bit"),
            lines('Content-Type: multipart/mixed; boundary="m"', "Content-Transfer-Encoding: 8bit", "", "--m")
            + text_part(*long)
            + lines("--m--"),
        ):
            raw = self.signed(part)
            assert recoded(raw) == raw
            assert recoded(raw, size=1000) == raw

    def test_what_cannot_is_converted_like_everything_else(self) -> None:
        raw = self.signed(text_part(UMLAUTS))
        done = recoded(raw)
        assert done.isascii()
        assert leaves(parsed(done)) == leaves(parsed(raw))

    def test_what_turns_out_late_not_to_be_ascii_cannot_be_sent(self) -> None:
        raw = self.signed(text_part(*["line"] * LOOK, UMLAUTS))
        with pytest.raises(RecodeError, match="signed"):
            recoded(raw)

    def test_what_comes_behind_is_not_signed(self) -> None:
        raw = (
            lines("MIME-Version: 1.0", 'Content-Type: multipart/mixed; boundary="o"', "", "--o")
            + self.signed(text_part("signed", encoding="7bit"))
            + lines("--o")
            + text_part("ASCII", encoding="8bit")
            + lines("--o--")
        )
        assert recoded(raw) == raw.replace(b"8bit", b"7bit")


@given(JUNK, st.sampled_from(["7bit", "8bit"]), st.integers(1, 40))
def test_any_message_however_cut_comes_out_the_same_and_fit(
    raw: bytes, conversion: Conversion, size: int
) -> None:
    try:
        whole = recoded(raw, conversion)
    except RecodeError:
        with pytest.raises(RecodeError):
            recoded(raw, conversion, size)
        return
    assert recoded(raw, conversion, size) == whole
    assert recoded(raw, conversion, 1) == whole
    if conversion == "7bit":
        for line in whole.split(b"\r\n"):
            # Header fields stay as they are
            assert line.isascii() or re.match(rb" folded", line) or b":" in line


@given(
    st.lists(st.sampled_from(["", "ä", "x" * 75, "=", ". ", "\t", "--", "From "]), max_size=20),
    st.integers(1, 30),
)
def test_text_stays_what_it_was(body: list[str], size: int) -> None:
    raw = lines("MIME-Version: 1.0") + text_part(*body)
    done = recoded(raw, size=size)
    assert done.isascii()
    assert leaves(parsed(done)) == leaves(parsed(raw))


@given(st.binary(max_size=300), st.integers(1, 30))
def test_binary_stays_what_it_was(octets: bytes, size: int) -> None:
    head = lines("MIME-Version: 1.0", "Content-Type: image/png", "Content-Transfer-Encoding: binary", "")
    done = recoded(head + octets, size=size)
    assert done.isascii()
    assert parsed(done).get_payload(decode=True) == octets
