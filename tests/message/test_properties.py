"""What holds of every message, however mangled."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymail.message import mime
from relaymail.message.headers import scan
from relaymail.message.summary import ParseLimits, Summary, summarize
from tests.message.build import budget, content, lines

FRAGMENTS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b";",
        b'"',
        b"(",
        b")",
        b"<",
        b">",
        b"@",
        b",",
        b":",
        b"\\",
    ),
    *(
        b"=",
        b"=?utf-8?q?=C3=BC?=",
        b"=?utf-7?q?+2AA-?=",
        b"=?x?b?AAA?=",
        b"=?",
        b"?=",
        b"\x00",
        b"\xff",
        b"\xc3",
    ),
    *(
        b"From: ",
        b"To: ",
        b"Cc: ",
        b"Subject: ",
        b"Message-ID: ",
        b"References: ",
        b"In-Reply-To: ",
        b"Received: x",
    ),
    *(
        b"Content-Type: ",
        b"Content-Disposition: ",
        b"Content-Transfer-Encoding: ",
        b"base64",
        b"quoted-printable",
    ),
    *(b"text/plain", b"text/html", b"message/rfc822", b"multipart/mixed", b"multipart/digest", b"image/png"),
    *(
        b"; boundary=b",
        b"; boundary=bb",
        b"; charset=utf-7",
        b"; charset=utf-16",
        b"; charset=hz",
        b"; name=a.txt",
    ),
    *(
        b"; filename*0*=utf-8''%C3",
        b"; filename*1=b",
        b"attachment",
        b"inline",
        b"--b",
        b"--bb",
        b"--b--",
        b"--",
    ),
    *(b"a@b.org", b"QUJD", b"QQ==", b"+2AA-", b"\x1b$B$3", "ü😀\u202e".encode(), b"a" * 70, b"../x/y.txt"),
]
LIMITS = ParseLimits(
    header_lines=40, header_bytes=2000, field_bytes=300, depth=4, parts=12, encoded_words=5, addresses=5
)

mangled = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=8)), max_size=80).map(b"".join)
line_wise = st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(b"".join), max_size=40).map(
    b"\r\n".join
)


def check_clean(text: str | None, limit: int, *, header: bool = True) -> None:
    if text is None:
        return
    assert len(text) <= limit
    assert "\x00" not in text
    text.encode("utf-8")  # no lone surrogates
    if header:
        assert not {"\r", "\n", "\t"} & set(text)


def check_columns(raw: bytes, summary: Summary) -> None:
    assert not summary.parse_status.startswith("failed")
    for text, limit in (
        (summary.message_id, 500),
        (summary.from_address, 320),
        (summary.from_display_name, 500),
        (summary.subject, 1000),
        (summary.in_reply_to, 500),
        (summary.references, 2000),
    ):
        check_clean(text, limit)
    assert summary.subject
    assert summary.message_id != ""
    check_clean(summary.text_body, 8 * 1024 * 1024, header=False)
    check_clean(summary.html_body, 8 * 1024 * 1024, header=False)
    for recipient in summary.recipients:
        assert recipient.address
        check_clean(recipient.address, 320)
        check_clean(recipient.display_name, 500)
    folded = [recipient.address.lower() for recipient in summary.recipients]
    assert len(set(folded)) == len(folded)
    for attachment in summary.attachments:
        assert attachment.file_name
        check_clean(attachment.file_name, 500)
        assert not {"/", "\\"} & set(attachment.file_name)
        check_clean(attachment.content_type, 200)
        assert attachment.content_type.count("/") == 1
        assert 0 <= attachment.start <= attachment.end <= len(raw)
        content(raw, attachment)
    assert 0 <= summary.header_bytes <= len(raw)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(), mangled, line_wise))
def test_any_bytes_give_clean_columns(raw: bytes) -> None:
    check_columns(raw, summarize(raw))
    check_columns(raw, summarize(raw, limits=LIMITS))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(line_wise)
def test_any_multipart_gives_clean_columns(body: bytes) -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + body + b"\r\n--b--\r\n"
    check_columns(raw, summarize(raw))


@settings(max_examples=300, deadline=None)
@given(mangled)
def test_the_leaves_of_a_message_follow_each_other_and_do_not_overlap(body: bytes) -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + body
    account = budget()
    section = scan(raw, 0, len(raw), mime.CONTENT_FIELDS, account)
    position = 0
    for leaf in mime.leaves(raw, section, len(raw), account):
        assert position <= leaf.start <= leaf.end <= len(raw)
        position = leaf.end


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60).filter(lambda data: b"-" not in data), min_size=1, max_size=8))
def test_parts_that_were_joined_are_cut_again(parts: list[bytes]) -> None:
    raw = lines("Content-Type: multipart/mixed; boundary=b", "")
    raw += b"".join(b"--b\r\nContent-Type: x/y\r\n\r\n" + part + b"\r\n" for part in parts) + b"--b--"
    assert [content(raw, each) for each in summarize(raw).attachments] == parts


@settings(max_examples=200, deadline=None)
@given(mangled, st.integers(0, 200))
def test_a_message_cut_anywhere_gives_clean_columns(raw: bytes, at: int) -> None:
    check_columns(raw[:at], summarize(raw[:at]))
