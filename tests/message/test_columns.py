"""Messages as they come in, and what of them stands in the columns."""

from __future__ import annotations

import base64

import pytest

from relaymail.message.summary import HeaderRecipient, ParseLimits, Summary, summarize
from tests.message.build import base64_lines, content, lines

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def read(raw: bytes) -> Summary:
    summary = summarize(raw)
    assert summary.parse_status == "complete"
    return summary


def files(raw: bytes) -> list[tuple[str, str, bytes]]:
    """Name, type and content of each attachment."""
    return [(each.file_name, each.content_type, content(raw, each)) for each in read(raw).attachments]


def multipart(subtype: str, *parts: bytes, boundary: str = "=_b", close: bool = True) -> bytes:
    """A multipart with its Content-Type field, the parts given with their headers."""
    head = lines(f'Content-Type: multipart/{subtype}; boundary="{boundary}"', "", "preamble")
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts)
    return head + body + (f"--{boundary}--\r\nepilogue\r\n".encode() if close else b"")


TEXT = b"Content-Type: text/plain; charset=utf-8\r\n\r\ntext"
HTML = b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>html</p>"
PDF = (
    b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
    b'Content-Disposition: attachment; filename="a.pdf"\r\n\r\n' + base64.b64encode(b"%PDF-1.7")
)


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_a_plain_message(end: bytes) -> None:
    raw = lines(
        "Received: from a by b; Mon, 5 Jan 2026 10:00:00 +0000",
        "Received: from c by d;",
        "\tMon, 5 Jan 2026 10:00:00 +0000",
        'From: "Example, Alice" <alice@example.org>',
        "Sender: robot@example.org",
        "To: Bob <bob@example.test>, carol@example.test",
        "Cc: BOB@example.test,",
        " Dave <dave@example.test>",
        "Bcc: secret@example.test",
        "Subject: A plain",
        " message",
        "Date: Mon, 5 Jan 2026 10:00:00 +0000",
        "Message-ID: <1.2@example.org>",
        "In-Reply-To: <0.2@example.org>",
        "References: <0.0@example.org> <0.1@example.org>",
        "\t<0.2@example.org>",
        "",
        "Hello,",
        "",
        "world.",
        end=end,
    )
    summary = read(raw)
    assert summary.message_id == "1.2@example.org"
    assert summary.from_address == "alice@example.org"
    assert summary.from_display_name == "Example, Alice"
    assert summary.sender_addresses == ("alice@example.org",)
    assert summary.subject == "A plain message"
    assert summary.in_reply_to == "0.2@example.org"
    assert summary.references == "<0.0@example.org> <0.1@example.org> <0.2@example.org>"
    assert summary.text_body == "Hello,\n\nworld.\n".replace("\n", end.decode())
    assert summary.html_body is None
    assert summary.recipients == (
        HeaderRecipient("bob@example.test", "Bob", "To"),
        HeaderRecipient("carol@example.test", None, "To"),
        HeaderRecipient("dave@example.test", "Dave", "Cc"),
    )
    assert summary.attachments == ()
    assert summary.header_bytes == raw.index(end + end)
    assert summary.hops == 2
    assert (summary.has_date, summary.has_message_id, summary.has_sender) == (True, True, True)


def test_a_message_without_any_header() -> None:
    summary = read(b"\r\nbody only\r\n")
    assert (summary.message_id, summary.from_address, summary.from_display_name) == (None, "", None)
    assert (summary.sender_addresses, summary.recipients) == ((), ())
    assert (summary.subject, summary.text_body) == ("(No Subject)", "body only\r\n")
    assert (summary.has_date, summary.has_message_id, summary.has_sender) == (False, False, False)


def test_an_empty_message() -> None:
    summary = read(b"")
    assert (summary.subject, summary.text_body, summary.header_bytes) == ("(No Subject)", "", 0)


def test_an_empty_subject_is_a_missing_one() -> None:
    assert read(b"Subject: \r\n\r\n").subject == "(No Subject)"
    assert read(b"Subject:\r\n\r\n").subject == "(No Subject)"


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("=?utf-8?B?5L2g5aW9?=", "你好"),
        ("=?iso-2022-jp?B?GyRCJDMkcyRLJEEkTxsoQg==?=", "こんにちは"),
        ("=?koi8-r?Q?=F0=D2=C9=D7=C5=D4?= friend", "Привет friend"),
        ("=?windows-1256?B?48fN6Mc=?=", "ماحèا"),
        ("Re: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?Q?_aus_K=C3=B6ln?=", "Re: Grüße aus Köln"),
        ("raw UTF-8: Größe 😀", "raw UTF-8: Größe 😀"),
        ("tab\tand \x00 and \x1b", "tab and \ufffd and \ufffd"),
        ("=?utf-8?Q?line=0D=0Abreak=00nul?=", "line break\ufffdnul"),
        ("=?utf-7?Q?+2AA-x?=", "\ufffdx"),
        ("   padded   ", "padded"),
    ],
)
def test_subjects_of_the_world(subject: str, expected: str) -> None:
    assert read(f"Subject: {subject}\r\n\r\n".encode()).subject == expected


def test_a_subject_in_latin_1_and_one_too_long() -> None:
    assert read("Subject: Größe\r\n\r\n".encode("latin-1")).subject == "Größe"
    long = read(b"Subject: " + "😀".encode() * 2000 + b"\r\n\r\n")
    assert long.subject == "😀" * 1000


def test_header_values_fit_their_columns() -> None:
    raw = lines(
        f"From: {'n' * 900} <{'a' * 400}@x.org>",
        f"To: <{'b' * 400}@x.org>, c@x.org",
        f"Message-ID: <{'m' * 900}@x.org>",
        f"In-Reply-To: <{'i' * 900}@x.org>",
        "",
    )
    summary = read(raw)
    assert summary.from_address == "a" * 320
    assert summary.sender_addresses == ("a" * 400 + "@x.org",)
    assert summary.from_display_name == "n" * 500
    assert summary.message_id == "m" * 500
    assert summary.in_reply_to == "i" * 500
    assert [each.address for each in summary.recipients] == ["c@x.org"]


def test_references_are_cut_between_ids() -> None:
    ids = [f"<{n:03}.{'r' * 80}@x.org>" for n in range(40)]
    kept = read(f"References: {' '.join(ids)}\r\n\r\n".encode()).references
    assert kept is not None
    assert 1900 < len(kept) <= 2000
    assert kept == " ".join(ids[: len(kept.split())])
    exact = " ".join(["<" + "r" * 98 + ">"] * 19 + ["<" + "s" * 79 + ">"])
    assert len(exact) == 2000
    assert read(f"References: {exact}\r\n\r\n".encode()).references == exact


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("<a.b@c.org>", "a.b@c.org"),
        ("  < a.b@c.org > ", "a.b@c.org"),
        ("<a.b@\r\n c.org>", "a.b@c.org"),
        ("a.b@c.org", "a.b@c.org"),
        ("<no-domain>", "no-domain"),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("<a=b+c/d$e:f@c.org>", "a=b+c/d$e:f@c.org"),
        ("<a@b> <c@d>", "a@b"),
        ("<a.b@c.org> (comment)", "a.b@c.org"),
        ("<>", None),
        ("", None),
        ("<", None),
        ("two words", None),
        ("<a@b@c>", None),
        ("<a@.org>", None),
        ("<(x)@y>", None),
        ("<\x00@y>", "\ufffd@y"),
        ("a\u00a0b@example.org", None),
        ("<a\u00a0b@example.org>", "ab@example.org"),
    ],
)
def test_message_ids(field: str, expected: str | None) -> None:
    summary = read(f"Message-ID: {field}\r\n\r\n".encode())
    assert summary.message_id == expected
    assert summary.has_message_id


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("<a@b>", "a@b"),
        ("<a@b> <c@d>", "a@b"),
        ('Your message of "Mon, 5 Jan" <a@b>', "a@b"),
        ("a@b", "a@b"),
        ("your letter", None),
    ],
)
def test_in_reply_to(field: str, expected: str | None) -> None:
    assert read(f"In-Reply-To: {field}\r\n\r\n".encode()).in_reply_to == expected


def test_every_from_address_is_known() -> None:
    raw = lines("From: a@x.org, B <b@x.org>", "From: c@x.org", "")
    assert read(raw).sender_addresses == ("a@x.org", "b@x.org", "c@x.org")


def test_repeated_to_fields_and_groups_are_recipients() -> None:
    raw = lines("To: Team: a@x.org, A@X.org;", "To: b@x.org", "Cc: b@x.org, c@x.org", "From: x@x.org", "")
    assert [(each.address, each.type) for each in read(raw).recipients] == [
        ("a@x.org", "To"),
        ("b@x.org", "To"),
        ("c@x.org", "Cc"),
    ]


@pytest.mark.parametrize("subtype", ["alternative", "mixed", "related", "unheard-of"])
def test_text_and_html_are_the_bodies(subtype: str) -> None:
    for parts in ((TEXT, HTML), (HTML, TEXT)):
        summary = read(multipart(subtype, *parts))
        assert (summary.text_body, summary.html_body, summary.attachments) == ("text", "<p>html</p>", ())


def test_inline_images_and_attachments_are_attachments() -> None:
    image = (
        b"Content-Type: image/png\r\nContent-ID: <logo>\r\nContent-Disposition: inline\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + base64_lines(PNG)
    )
    related = multipart("related", HTML, image, boundary="rel")
    alternative = multipart("alternative", TEXT, related, boundary="alt")
    raw = multipart("mixed", alternative, PDF)
    summary = read(raw)
    assert (summary.text_body, summary.html_body) == ("text", "<p>html</p>")
    assert files(raw) == [("image.png", "image/png", PNG), ("a.pdf", "application/pdf", b"%PDF-1.7")]


def test_text_with_a_name_or_marked_is_an_attachment() -> None:
    named = b'Content-Type: text/plain; name="notes.txt"\r\n\r\nnotes'
    marked = b"Content-Type: text/html\r\nContent-Disposition: attachment\r\n\r\n<p>"
    unknown = b"Content-Disposition: x-strange\r\n\r\nodd"
    raw = multipart("mixed", named, marked, unknown, TEXT)
    assert read(raw).text_body == "text"
    assert files(raw) == [
        ("notes.txt", "text/plain", b"notes"),
        ("attachment.html", "text/html", b"<p>"),
        ("attachment.txt", "text/plain", b"odd"),
    ]


def test_a_body_that_is_all_there_is_may_have_a_name() -> None:
    assert read(b"Content-Type: text/plain; name=x.txt\r\n\r\nhi").text_body == "hi"
    raw = b"Content-Disposition: attachment; filename=x.txt\r\n\r\nhi"
    assert read(raw).text_body is None
    assert files(raw) == [("x.txt", "text/plain", b"hi")]


def test_further_text_is_attached_unless_it_is_blank() -> None:
    blank = b"Content-Type: text/plain\r\n\r\n \r\n\r\n"
    footer = b"Content-Type: text/plain\r\n\r\n-- \r\nfooter"
    raw = multipart("mixed", TEXT, PDF, blank, footer)
    assert read(raw).text_body == "text"
    assert [name for name, _, _ in files(raw)] == ["a.pdf", "attachment.txt"]


def test_a_forwarded_message_is_an_attachment_and_not_looked_into() -> None:
    inner = lines("From: x@y.org", "Subject: inner", "Content-Type: text/html", "", "<p>inner</p>")
    part = b"Content-Type: message/rfc822\r\n\r\n" + inner
    raw = multipart("mixed", part, TEXT)
    assert (read(raw).text_body, read(raw).html_body) == ("text", None)
    assert files(raw) == [("message.eml", "message/rfc822", inner)]


def test_a_forwarded_message_in_base64_or_with_a_name() -> None:
    inner = lines("From: x@y.org", "Subject: inner", "", "inner")
    part = b"Content-Type: message/rfc822; name=old.eml\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    raw = multipart("mixed", part + base64_lines(inner))
    assert files(raw) == [("old.eml", "message/rfc822", inner)]


def test_what_is_called_a_message_and_is_none_is_bytes() -> None:
    raw = multipart("mixed", TEXT, b"Content-Type: message/rfc822\r\n\r\nno header here")
    assert files(raw) == [("attachment", "application/octet-stream", b"no header here")]


def test_a_message_that_is_one_attachment() -> None:
    raw = lines("Content-Type: application/zip", "Content-Transfer-Encoding: base64", "") + b"UEsDBA==\r\n"
    assert read(raw).text_body is None
    assert files(raw) == [("attachment.zip", "application/zip", b"PK\x03\x04")]


def test_a_digest_holds_messages() -> None:
    inner = b"From: a@b.org\r\nSubject: one\r\n\r\nbody"
    raw = multipart("digest", b"\r\n" + inner, b"Content-Type: text/plain\r\n\r\ntext")
    assert read(raw).text_body == "text"
    assert files(raw) == [("message.eml", "message/rfc822", inner)]


def test_a_signed_message_pgp() -> None:
    signature = b"Content-Type: application/pgp-signature\r\n\r\n-----BEGIN PGP SIGNATURE-----"
    raw = multipart('signed; micalg=pgp-sha256; protocol="application/pgp-signature"', TEXT, signature)
    assert read(raw).text_body == "text"
    assert files(raw) == [
        ("signature.asc", "application/pgp-signature", b"-----BEGIN PGP SIGNATURE-----"),
    ]


def test_an_encrypted_message_pgp() -> None:
    version = b"Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n"
    secret = (
        b'Content-Type: application/octet-stream; name="encrypted.asc"\r\n\r\n-----BEGIN PGP MESSAGE-----'
    )
    raw = multipart('encrypted; protocol="application/pgp-encrypted"', version, secret)
    assert read(raw).text_body is None
    assert [name for name, _, _ in files(raw)] == ["version.asc", "encrypted.asc"]


def test_s_mime_signed_and_enveloped() -> None:
    signature = (
        b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=smime.p7s\r\n\r\n" + base64.b64encode(b"\x30\x80")
    )
    raw = multipart("signed", multipart("alternative", TEXT, HTML, boundary="alt"), signature)
    assert (read(raw).text_body, read(raw).html_body) == ("text", "<p>html</p>")
    assert files(raw) == [("smime.p7s", "application/pkcs7-signature", b"\x30\x80")]
    raw = lines("Content-Type: application/pkcs7-mime; smime-type=enveloped-data", "") + b"\x30\x80"
    assert files(raw) == [("smime.p7m", "application/pkcs7-mime", b"\x30\x80")]


def test_an_invitation() -> None:
    calendar = b'Content-Type: text/calendar; charset="utf-8"; method=REQUEST\r\n\r\nBEGIN:VCALENDAR'
    raw = multipart("alternative", TEXT, HTML, calendar)
    assert read(raw).text_body == "text"
    assert files(raw) == [("invite.ics", "text/calendar", b"BEGIN:VCALENDAR")]


def test_a_delivery_report() -> None:
    status = lines(
        "Content-Type: message/delivery-status", "", "Reporting-MTA: dns; a.test", "", "Action: failed"
    )
    returned = lines("Content-Type: message/rfc822", "", "Subject: returned", "", "body")
    headers = lines("Content-Type: text/rfc822-headers", "", "Subject: returned")
    raw = multipart("report; report-type=delivery-status", TEXT, status, returned, headers)
    assert read(raw).text_body == "text"
    assert [(name, kind) for name, kind, _ in files(raw)] == [
        ("delivery-status.txt", "message/delivery-status"),
        ("message.eml", "message/rfc822"),
        ("headers.txt", "text/rfc822-headers"),
    ]


@pytest.mark.parametrize(
    ("disposition", "content_type", "name"),
    [
        ("attachment; filename=\"a.txt\"; filename*=utf-8''%E4%BD%A0.txt", "x/y", "你.txt"),
        ("attachment", 'x/y; name="=?utf-8?B?5L2g?=.txt"', "你.txt"),
        ("attachment; filename=disposition.txt", "x/y; name=type.txt", "disposition.txt"),
        ("attachment; filename=../../etc/passwd", "x/y", "passwd"),
        ('attachment; filename="C:\\\\Temp\\\\a.exe"', "x/y", "a.exe"),
        ('attachment; filename="a=00.txt"', "x/y", "a=00.txt"),
        ('attachment; filename=".."', "image/gif", "image.gif"),
        ("attachment", "x/y", "attachment"),
        ('attachment; filename="a\tb.txt"', "x/y", "ab.txt"),
        (f"attachment; filename={'x' * 600}.jpeg", "x/y", "x" * 495 + ".jpeg"),
    ],
)
def test_names_of_attachments(disposition: str, content_type: str, name: str) -> None:
    raw = lines(f"Content-Type: {content_type}", f"Content-Disposition: {disposition}", "", "x")
    assert [each.file_name for each in read(raw).attachments] == [name]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("APPLICATION/Octet-Stream", "application/octet-stream"),
        ("pdf", "application/octet-stream"),
        ("application/x pdf; name=a", "application/x"),
        (f"application/{'x' * 300}", "application/octet-stream"),
        ("image/png\x00", "image/png"),
        ("multipart/mixed", "text/plain"),
    ],
)
def test_types_of_attachments_can_be_parsed(content_type: str, expected: str) -> None:
    raw = lines(f"Content-Type: {content_type}", "Content-Disposition: attachment", "", "x")
    assert [each.content_type for each in read(raw).attachments] == [expected]


def test_a_bad_type_without_a_name_is_read_as_text() -> None:
    raw = lines("Content-Type: nonsense", "", "hello")
    assert (read(raw).text_body, read(raw).attachments) == ("hello\r\n", ())
    raw = lines("Content-Type: nonsense", "Content-Transfer-Encoding: base64", "", "AAAA")
    assert files(raw) == [("attachment", "application/octet-stream", b"\0\0\0")]


@pytest.mark.parametrize(
    "field",
    [
        "multipart/mixed",
        'multipart/mixed; boundary=""',
        "multipart/mixed; boundary=elsewhere",
        f"multipart/mixed; boundary={'b' * 2000}",
    ],
)
def test_a_broken_multipart_is_its_text(field: str) -> None:
    raw = lines(f"Content-Type: {field}", "", "--b", "Content-Type: text/html", "", "hello")
    assert read(raw).text_body == "--b\r\nContent-Type: text/html\r\n\r\nhello\r\n"


def test_a_multipart_without_its_end_is_read_to_the_end() -> None:
    raw = multipart("mixed", TEXT, PDF, close=False)
    assert read(raw).text_body == "text"
    assert files(raw) == [("a.pdf", "application/pdf", b"%PDF-1.7")]


def test_an_outer_delimiter_ends_an_inner_multipart_that_lacks_its_end() -> None:
    inner = multipart("alternative", TEXT, HTML, boundary="in", close=False)
    raw = multipart("mixed", inner, PDF)
    summary = read(raw)
    assert (summary.text_body, summary.html_body) == ("text", "<p>html</p>\r\n")
    assert files(raw) == [("a.pdf", "application/pdf", b"%PDF-1.7")]


def test_a_boundary_that_begins_like_another() -> None:
    inner = multipart("alternative", TEXT, HTML, boundary="b-2")
    raw = multipart("mixed", inner, PDF, boundary="b")
    assert (read(raw).text_body, read(raw).html_body) == ("text", "<p>html</p>")
    assert len(files(raw)) == 1


def test_a_delimiter_has_a_line_to_itself() -> None:
    text = b"\r\nx --=_b\r\n--=_bx\r\n --=_b\r\n--=_b x"
    assert read(multipart("mixed", text)).text_body == text[2:].decode()
    spaced = multipart("mixed", TEXT, HTML).replace(b"--=_b\r\n", b"--=_b \t\r\n")
    assert read(spaced).text_body == "text"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\r\n"])
def test_multiparts_with_other_line_ends(end: bytes) -> None:
    raw = multipart("mixed", TEXT, HTML, PDF).replace(b"\r\n", end)
    assert read(raw).html_body == "<p>html</p>" + end[:-2].decode()
    assert [each.file_name for each in read(raw).attachments] == ["a.pdf"]


def test_empty_parts_are_harmless() -> None:
    raw = lines("Content-Type: multipart/mixed; boundary=b", "", *["--b"] * 50, "--b--")
    assert (read(raw).text_body, read(raw).attachments) == ("", ())


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        ("utf-8", "utf-8", "Grüße 😀\r\n"),
        ("iso-2022-jp", "iso2022_jp", "こんにちは\r\n"),
        ("windows-1251", "cp1251", "Привет\r\n"),
        ("gb2312", "gb2312", "你好\r\n"),
        ("utf-16", "utf-16", "Grüße\r\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit", "binary", "x-odd"])
def test_bodies_of_the_world(charset: str, codec: str, text: str, encoding: str) -> None:
    data = text.encode(codec)
    if encoding == "base64":
        data = base64_lines(data)
    elif encoding == "quoted-printable":
        data = b"".join(b"=%02X" % byte for byte in data)
    raw = lines(f"Content-Type: text/html; charset={charset}", f"Content-Transfer-Encoding: {encoding}", "")
    assert read(raw + data).html_body == text


def test_a_body_without_a_charset_is_utf_8_or_latin_1_and_clean() -> None:
    assert read("\r\nGrüße".encode()).text_body == "Grüße"
    assert read("\r\nGrüße".encode("latin-1")).text_body == "Grüße"
    assert read(b"\r\na\x00b").text_body == "a\ufffdb"
    assert read(b"\r\n\xef\xbb\xbfmarked").text_body == "marked"


def test_long_bodies_are_read_in_pieces_and_clipped() -> None:
    text = "Grüße\r\n" * 100_000
    raw = lines("Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: base64", "")
    raw += base64_lines(text.encode())
    assert read(raw).text_body == text
    clipped = summarize(raw, limits=ParseLimits(body_characters=300_001))
    assert clipped.text_body == text[:300_001]
    assert clipped.parse_status == "limited: text over 300001 characters (reader 1)"
    short = summarize("\r\nGrüße".encode(), limits=ParseLimits(body_characters=4))
    assert (short.text_body, short.parse_status) == ("Grüß", "limited: text over 4 characters (reader 1)")


def test_a_text_of_exactly_the_limit_is_complete() -> None:
    assert summarize(b"\r\n1234", limits=ParseLimits(body_characters=4)).parse_status == "complete"


def test_a_large_attachment_is_exact() -> None:
    data = bytes(range(256)) * 8000
    part = (
        b"Content-Type: application/x-big\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=big.bin\r\n\r\n" + base64_lines(data)
    )
    assert files(multipart("mixed", TEXT, part)) == [("big.bin", "application/x-big", data)]
