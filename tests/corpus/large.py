"""Messages that are too large for a file, made as they are needed, with what is expected of them."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterable
from typing import Final

from tests.corpus.cases import BOB, Attachment, Case, Expected, Recipient, header, ordinary

KIB: Final = 1024
MIB: Final = 1024 * KIB
TO_BOB: Final = Recipient("To", BOB, "Bob", "bob")
BCC_BOB: Final = Recipient("Bcc", BOB, None, "bob")
REPLACEMENT: Final = "\ufffd"
HEADER_LIMITS: Final = ("header section over 1048576 bytes", "header lines over 2000")
CLIPPED: Final = 8 * MIB
"""Characters of a text column."""

LARGE: Final[dict[str, Callable[[], Case]]] = {}
"""The makers by name."""


def large(make: Callable[[str], Case]) -> Callable[[str], Case]:
    """Register a maker; the name it is given is its own."""
    name = make.__name__.replace("_", "-")
    LARGE[name] = lambda: make(name)
    return make


def case(
    name: str,
    raw: bytes,
    *limits: str,
    recipients: Iterable[Recipient] = (TO_BOB,),
    attachments: Iterable[Attachment] = (),
    **columns: str | None,
) -> Case:
    """A case; ``limits`` are those that were reached."""
    status = f"limited: {', '.join(limits)} (reader 1)" if limits else "complete"
    return Case(raw, Expected(ordinary(name, **columns), list(recipients), list(attachments), status))


def mixed(name: str, content: bytes, boundary: bytes = b"b") -> bytes:
    """A multipart/mixed of a text, and then ``content``."""
    return (
        header(name)
        + b"Content-Type: multipart/mixed; boundary="
        + boundary
        + b"\r\n\r\n--"
        + boundary
        + b"\r\n\r\ntext\r\n"
        + content
    )


def part(headers: bytes, body: bytes) -> bytes:
    """A further part of :func:`mixed`, and the end of it."""
    return b"--b\r\n" + headers + b"\r\n" + body + b"\r\n--b--\r\n"


# Header sections


@large
def header_of_2000_lines(name: str) -> Case:
    return case(name, header(name) + b"X: y\r\n" * 1996 + b"\r\ntext\r\n")


@large
def header_of_2001_lines(name: str) -> Case:
    raw = b"X: y\r\n" * 1997 + header(name) + b"\r\ntext\r\n"
    return case(name, raw, "header lines over 2000", message_id=None)


@large
def header_of_100000_lines(name: str) -> Case:
    raw = header(name) + b"X-Filler: y\r\n" * 100_000 + b"Cc: carol@example.org\r\n\r\ntext\r\n"
    return case(name, raw, *HEADER_LIMITS)


@large
def header_of_60000_subjects(name: str) -> Case:
    raw = header(name) + b"Subject: again\r\n" * 60_000 + b"\r\ntext\r\n"
    return case(name, raw, "header lines over 2000")


@large
def header_of_continuations_only(name: str) -> Case:
    raw = header(name).replace(b"Hello\r\n", b"Hello\r\n" + b" x\r\n" * 5000) + b"\r\ntext\r\n"
    # The Message-ID comes behind the last line that is read
    subject = ("Hello" + " x" * 1997)[:1000]
    return case(name, raw, "header lines over 2000", subject=subject, message_id=None)


@large
def header_line_of_3_mib(name: str) -> Case:
    raw = header(name) + b"X-Long: " + b"x" * (3 * MIB) + b"\r\n\r\ntext\r\n"
    return case(name, raw, "header section over 1048576 bytes")


@large
def header_line_of_2_mib_in_front(name: str) -> Case:
    raw = b"X-Long: " + b"x" * (2 * MIB) + b"\r\n" + header(name) + b"\r\ntext\r\n"
    return case(
        name,
        raw,
        "header section over 1048576 bytes",
        recipients=[BCC_BOB],
        message_id=None,
        from_address="",
        from_display_name=None,
        subject="(No Subject)",
    )


@large
def header_never_ending(name: str) -> Case:
    return case(name, header(name) + b"X: y\r\n" * 400_000, *HEADER_LIMITS, text_body="")


@large
def header_of_received_lines(name: str) -> Case:
    raw = b"Received: from a by b; Mon, 5 Jan 2026 10:00:00 +0000\r\n" * 1500 + header(name) + b"\r\ntext\r\n"
    return case(name, raw)


# One field


@large
def subject_of_65000_octets(name: str) -> Case:
    raw = header(name).replace(b"Hello", b"s" * 65_000) + b"\r\ntext\r\n"
    return case(name, raw, subject="s" * 1000)


@large
def subject_over_64_kib(name: str) -> Case:
    raw = header(name).replace(b"Hello", b"s" * 70_000) + b"\r\ntext\r\n"
    return case(name, raw, "header field over 65536 bytes", subject="s" * 1000)


@large
def subject_of_64_kib_once_unfolded(name: str) -> Case:
    lines = b"\r\n ".join([b"s" * 990] * 900)
    raw = header(name).replace(b"Hello", lines) + b"\r\ntext\r\n"
    return case(name, raw, "header field over 65536 bytes", subject="s" * 990 + " " + "s" * 9)


@large
def subject_of_1000_encoded_words(name: str) -> Case:
    raw = header(name).replace(b"Hello", b" ".join([b"=?utf-8?q?=C3=BC?="] * 1000)) + b"\r\ntext\r\n"
    return case(name, raw, subject="ü" * 1000)


@large
def subject_of_2000_encoded_words(name: str) -> Case:
    raw = header(name).replace(b"Hello", b" ".join([b"=?utf-8?q?=C3=BC?="] * 2000)) + b"\r\ntext\r\n"
    return case(name, raw, "encoded words over 1000", subject="ü" * 1000)


@large
def subject_of_words_beyond_the_limit(name: str) -> Case:
    words = b" ".join([b"=?utf-8?q??="] * 1000 + [b"=?utf-8?q?a?="])
    raw = header(name).replace(b"Hello", words) + b"\r\ntext\r\n"
    return case(name, raw, "encoded words over 1000", subject="=?utf-8?q?a?=")


@large
def subject_of_one_word_of_60_kib(name: str) -> Case:
    word = b"=?utf-8?b?" + base64.b64encode("ü".encode() * 22_000) + b"?="
    return case(name, header(name).replace(b"Hello", word) + b"\r\ntext\r\n", subject="ü" * 1000)


@large
def message_id_of_60_kib(name: str) -> Case:
    raw = header(name).replace(f"<{name}@".encode(), b"<" + b"m" * 60_000 + b"@") + b"\r\ntext\r\n"
    return case(name, raw, message_id="m" * 500)


@large
def references_of_60_kib(name: str) -> Case:
    raw = header(name) + b"References: " + b"<r@example.net> " * 3700 + b"\r\n\r\ntext\r\n"
    # 125 of 15 characters with 124 blanks between them are 1,999
    return case(name, raw, references=" ".join(["<r@example.net>"] * 125))


@large
def from_of_nested_comments(name: str) -> Case:
    nested = b"(" * 30_000 + b")" * 30_000
    raw = header(name).replace(b"From: Alice", b"From: " + nested + b" Alice") + b"\r\ntext\r\n"
    return case(name, raw)


@large
def from_of_comments_never_closed(name: str) -> Case:
    raw = header(name).replace(b"From: Alice", b"From: Alice " + b"(" * 60_000) + b"\r\ntext\r\n"
    return case(name, raw)


@large
def from_of_60_kib_local_part(name: str) -> Case:
    raw = header(name).replace(b"<alice@", b"<" + b"a" * 60_000 + b"@") + b"\r\ntext\r\n"
    return case(name, raw, from_address="a" * 320)


@large
def to_of_2000_addresses(name: str) -> Case:
    return _addresses(name, 2000)


@large
def to_of_4000_addresses(name: str) -> Case:
    return _addresses(name, 4000, "addresses over 2000")


def _addresses(name: str, count: int, *limits: str) -> Case:
    others = [f"u{n}@x.test" for n in range(count - 1)]
    raw = header(name).replace(b"@example.test>", b"@example.test>, " + ", ".join(others).encode())
    recipients = [TO_BOB, *(Recipient("To", address) for address in others[:1999])]
    return case(name, raw + b"\r\ntext\r\n", *limits, recipients=recipients)


@large
def to_in_30_fields(name: str) -> Case:
    fields = [[f"f{n}-{i}@x.test" for i in range(100)] for n in range(30)]
    lines = b"".join(b"To: " + ", ".join(field).encode() + b"\r\n" for field in fields)
    others = [Recipient("To", address) for field in fields for address in field]
    return case(name, header(name) + lines + b"\r\ntext\r\n", recipients=[TO_BOB, *others])


@large
def to_the_same_3500_times(name: str) -> Case:
    raw = header(name).replace(b"@example.test>", b"@example.test>" + b",bob@example.test" * 3500)
    return case(name, raw + b"\r\ntext\r\n", "addresses over 2000")


@large
def parameters_over_1000(name: str) -> Case:
    pieces = b"".join(b"; filename*%d=x" % n for n in range(1500))
    raw = mixed(
        name, part(b"Content-Type: a/b\r\nContent-Disposition: attachment" + pieces + b"\r\n", b"content")
    )
    return case(
        name,
        raw,
        "parameters over 1000",
        text_body="text",
        attachments=[Attachment.of("x" * 500, "a/b", b"content")],
    )


@large
def file_name_of_60_kib_of_paths(name: str) -> Case:
    path = b"../" * 20_000 + b"evil.sh"
    raw = mixed(
        name, part(b"Content-Type: a/b\r\nContent-Disposition: attachment; filename=" + path + b"\r\n", b"x")
    )
    return case(name, raw, text_body="text", attachments=[Attachment.of("evil.sh", "a/b", b"x")])


@large
def file_name_of_60_kib(name: str) -> Case:
    long = b"n" * 60_000 + b".pdf"
    raw = mixed(
        name, part(b"Content-Type: a/b\r\nContent-Disposition: attachment; filename=" + long + b"\r\n", b"x")
    )
    return case(name, raw, text_body="text", attachments=[Attachment.of("n" * 496 + ".pdf", "a/b", b"x")])


@large
def boundary_of_70000_octets(name: str) -> Case:
    body = b"--" + b"b" * 70_000 + b"\r\n\r\ntext\r\n"
    raw = header(name) + b"Content-Type: multipart/mixed; boundary=" + b"b" * 70_000 + b"\r\n\r\n" + body
    return case(name, raw, "header field over 65536 bytes", text_body=body.decode())


# Multiparts


@large
def parts_1000(name: str) -> Case:
    return _parts(name, 1000)


@large
def parts_1001(name: str) -> Case:
    return _parts(name, 1001, "parts over 1000")


@large
def parts_20000(name: str) -> Case:
    return _parts(name, 20_000, "parts over 1000")


def _parts(name: str, count: int, *limits: str) -> Case:
    """``count`` parts: the multipart itself, a text, and attachments; no more than 1,000 are read."""
    others = [b"%d" % n for n in range(count - 2)]
    raw = mixed(
        name, b"".join(b"--b\r\nContent-Type: a/b\r\n\r\n%s\r\n" % each for each in others) + b"--b--\r\n"
    )
    attachments = [Attachment.of("attachment", "a/b", each) for each in others[:998]]
    return case(name, raw, *limits, text_body="text", attachments=attachments)


@large
def parts_empty_100000(name: str) -> Case:
    return case(name, mixed(name, b"--b\r\n" * 100_000), "parts over 1000", text_body="text")


@large
def depth_100(name: str) -> Case:
    return case(name, _nested(name, 100), text_body="innermost")


@large
def depth_101(name: str) -> Case:
    return case(name, _nested(name, 101), "depth over 100", text_body=None)


@large
def depth_5000(name: str) -> Case:
    return case(name, _nested(name, 5000), "depth over 100", text_body=None)


def _nested(name: str, depth: int) -> bytes:
    opening = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth)
    )
    closing = b"".join(b"\r\n--b%d--" % n for n in reversed(range(depth)))
    return header(name) + opening + b"\r\ninnermost" + closing + b"\r\n"


@large
def depth_5000_of_one_boundary(name: str) -> Case:
    level = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    # Every delimiter is the outermost's: what looks like a level is an empty part of it
    return case(name, header(name) + level * 5000, "parts over 1000", text_body="")


@large
def near_delimiters_30000(name: str) -> Case:
    raw = mixed(name, b"--bx\r\n" * 30_000 + b"--b--\r\n")
    return case(name, raw, "near delimiters over 20000", text_body=None)


@large
def preamble_of_3_mib(name: str) -> Case:
    head = header(name) + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    raw = head + b"preamble preamble\r\n" * (3 * MIB // 19) + b"--b\r\n\r\ntext\r\n--b--\r\n"
    return case(name, raw, text_body="text")


@large
def epilogue_of_3_mib(name: str) -> Case:
    return case(name, mixed(name, b"--b--\r\n" + b"epilogue\r\n" * (MIB // 3)), text_body="text")


@large
def messages_in_messages_10000(name: str) -> Case:
    inner = b"Content-Type: message/rfc822\r\n\r\n" * 10_000 + b"Subject: innermost\r\n\r\nx"
    raw = mixed(name, part(b"Content-Type: message/rfc822\r\n", inner))
    return case(
        name, raw, text_body="text", attachments=[Attachment.of("message.eml", "message/rfc822", inner)]
    )


# Bodies


@large
def text_of_9_mib(name: str) -> Case:
    text = "text text text\r\n" * (9 * MIB // 16)
    return case(
        name, header(name) + b"\r\n" + text.encode(), "text over 8388608 characters", text_body=text[:CLIPPED]
    )


@large
def text_of_one_line_of_3_mib(name: str) -> Case:
    return case(name, header(name) + b"\r\n" + b"x" * (3 * MIB), text_body="x" * (3 * MIB))


@large
def text_of_nuls(name: str) -> Case:
    return case(name, header(name) + b"\r\n" + bytes(2 * MIB), text_body=REPLACEMENT * (2 * MIB))


@large
def text_of_dots(name: str) -> Case:
    return case(name, header(name) + b"\r\n" + b"." * (2 * MIB), text_body="." * (2 * MIB))


@large
def text_of_a_million_empty_lines(name: str) -> Case:
    return case(name, header(name) + b"\r\n" + b"\r\n" * 1_000_000, text_body="\r\n" * 1_000_000)


@large
def text_of_carriage_returns(name: str) -> Case:
    return case(name, header(name) + b"\r\n" + b"\r" * (2 * MIB), text_body="\r" * (2 * MIB))


@large
def text_of_emoji(name: str) -> Case:
    text = "👩‍👩‍👧‍👦" * 50_000
    return case(name, header(name) + b"\r\n" + text.encode(), text_body=text)


@large
def text_of_latin_1(name: str) -> Case:
    return case(name, header(name) + b"\r\n" + b"\xfc" * (2 * MIB), text_body="ü" * (2 * MIB))


@large
def text_of_utf_8_that_ends_in_latin_1(name: str) -> Case:
    body = "ü".encode() * MIB + b"\xfc"
    return case(name, header(name) + b"\r\n" + body, text_body=body.decode("latin-1"))


@large
def text_of_surrogates_in_utf_16(name: str) -> Case:
    raw = header(name) + b"Content-Type: text/plain; charset=utf-16be\r\n\r\n" + b"\xd8\0" * MIB
    # A high surrogate wants a low one: the two octets behind it are read again
    return case(name, raw, text_body=REPLACEMENT * MIB)


@large
def text_of_surrogates_in_utf_7(name: str) -> Case:
    raw = header(name) + b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+2AA-" * 200_000
    return case(name, raw, text_body=REPLACEMENT * 200_000)


@large
def html_of_500000_elements(name: str) -> Case:
    html = "<div>" * 500_000
    raw = header(name) + b"Content-Type: text/html\r\n\r\n" + html.encode()
    return case(name, raw, text_body=None, html_body=html)


@large
def noise_of_1_mib(name: str) -> Case:
    noise = b"\xff" + random.Random(1).randbytes(MIB)
    return case(
        name,
        noise,
        recipients=[BCC_BOB],
        message_id=None,
        from_address="",
        from_display_name=None,
        subject="(No Subject)",
        text_body=noise.decode("latin-1").replace("\0", REPLACEMENT),
    )


@large
def uuencoded_1_mib(name: str) -> Case:
    text = "begin 644 a.bin\r\n" + ("M" + "!" * 60 + "\r\n") * 16_000 + "`\r\nend\r\n"
    return case(name, header(name) + b"\r\n" + text.encode(), text_body=text)


# Attachments


def _attached(name: str, encoding: bytes, body: bytes, content: bytes) -> Case:
    headers = b"Content-Type: application/x-thing\r\nContent-Disposition: attachment; filename=a.bin\r\n"
    raw = mixed(name, part(headers + b"Content-Transfer-Encoding: " + encoding + b"\r\n", body))
    return case(
        name, raw, text_body="text", attachments=[Attachment.of("a.bin", "application/x-thing", content)]
    )


@large
def attachment_of_6_mib_in_base64(name: str) -> Case:
    content = random.Random(2).randbytes(6 * MIB)
    return _attached(name, b"base64", base64.encodebytes(content).replace(b"\n", b"\r\n"), content)


@large
def attachment_in_base64_without_line_ends(name: str) -> Case:
    content = random.Random(3).randbytes(2 * MIB)
    return _attached(name, b"base64", base64.b64encode(content), content)


@large
def attachment_in_base64_among_garbage(name: str) -> Case:
    return _attached(name, b"base64", b"QU*\0JD\xff-_" * 400_000, b"ABC" * 400_000)


@large
def attachment_in_base64_padded_everywhere(name: str) -> Case:
    return _attached(name, b"base64", b"QQ==\r\n" * 400_000, b"A" * 400_000)


@large
def attachment_of_padding(name: str) -> Case:
    return _attached(name, b"base64", b"=" * (2 * MIB), b"")


@large
def attachment_in_quoted_printable(name: str) -> Case:
    return _attached(name, b"quoted-printable", b"=00=FF=\r\n" * 500_000, b"\0\xff" * 500_000)


@large
def attachment_of_soft_breaks_and_blanks(name: str) -> Case:
    return _attached(name, b"quoted-printable", b"= \t\r\n" * 500_000, b"")


@large
def attachment_of_broken_escapes(name: str) -> Case:
    return _attached(name, b"quoted-printable", b"=ZZ" * MIB, b"=ZZ" * MIB)


@large
def attachment_of_every_octet(name: str) -> Case:
    content = bytes(range(256)) * (2 * MIB // 256)
    return _attached(name, b"binary", content, content)


@large
def attachment_that_is_not_closed(name: str) -> Case:
    content = b"x" * (2 * MIB)
    raw = mixed(name, b"--b\r\nContent-Type: a/b\r\n\r\n" + content)
    return case(name, raw, text_body="text", attachments=[Attachment.of("attachment", "a/b", content)])
