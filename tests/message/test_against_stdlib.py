"""On well-formed mail the standard library (compat32) is right: what it reads, we read."""

from __future__ import annotations

import email
import email.policy
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.utils import collapse_rfc2231_value
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymail.message.summary import summarize
from tests.message.build import content

# Header text that survives folding: no controls, single blanks, none at the ends
words = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Cn", "Co", "Zs", "Zl", "Zp", "Mn", "Me", "Mc")
    ),
    min_size=1,
    max_size=12,
)
phrases = st.lists(words, min_size=1, max_size=8).map(" ".join)
stems = st.text("abcdefgh ÄÖÜäöüß你好привет-_()[]'!,;", min_size=1, max_size=60).map(str.strip).filter(bool)
bodies = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x00\ufeff", exclude_categories=["Cs"]), max_size=400
)
encodings = st.sampled_from(["base64", "quoted-printable", "8bit"])
addresses = st.from_regex(r"\A[a-z0-9]{1,8}(\.[a-z0-9]{1,8})?@[a-z]{1,8}\.(org|test)\Z")


@st.composite
def messages(draw: st.DrawFn) -> EmailMessage:
    """Text, perhaps HTML, and files of random bytes."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"] = draw(addresses)
    message["To"] = ", ".join(draw(st.lists(addresses, min_size=1, max_size=30)))
    message["Subject"] = draw(phrases)
    message["Message-ID"] = "<id.1@example.org>"
    message.set_content(draw(bodies), cte=draw(encodings))
    if draw(st.booleans()):
        message.add_alternative(draw(bodies), subtype="html", cte=draw(encodings))
    for data, stem in draw(st.lists(st.tuples(st.binary(max_size=3000), stems), max_size=4)):
        message.add_attachment(
            data,
            maintype="application",
            subtype="octet-stream",
            filename=f"{stem}.bin",
            cte=draw(st.sampled_from(["base64", "quoted-printable"])),
        )
    return message


def text_of(part: Message) -> str:
    data = cast(bytes, part.get_payload(decode=True))
    return data.decode(str(part.get_content_charset("utf-8")))


def without_nul(text: str) -> str:
    return text.replace("\x00", "\ufffd")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(messages())
def test_what_the_standard_library_reads_we_read(message: EmailMessage) -> None:
    raw = message.as_bytes()
    theirs = email.message_from_bytes(raw)
    ours = summarize(raw)
    assert ours.parse_status == "complete"
    assert ours.subject == str(make_header(decode_header(theirs["Subject"]))).replace("\r\n", "")
    unique = dict.fromkeys(each.strip() for each in theirs["To"].replace("\r\n", "").split(","))
    assert [each.address for each in ours.recipients] == list(unique)
    leaves = [part for part in theirs.walk() if not part.is_multipart()]
    texts = [part for part in leaves if part.get_content_type() == "text/plain"]
    htmls = [part for part in leaves if part.get_content_type() == "text/html"]
    assert ours.text_body == without_nul(text_of(texts[0]))
    assert ours.html_body == (without_nul(text_of(htmls[0])) if htmls else None)
    files = [part for part in leaves if part.get_content_disposition() == "attachment"]
    assert [each.file_name for each in ours.attachments] == [
        collapse_rfc2231_value(part.get_filename() or "") for part in files
    ]
    assert [content(raw, each) for each in ours.attachments] == [
        part.get_payload(decode=True) for part in files
    ]


@pytest.mark.parametrize("subtype", ["mixed", "alternative", "digest"])
@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.binary(max_size=300).filter(lambda data: b"--" not in data), min_size=1, max_size=5))
def test_parts_are_cut_where_the_standard_library_cuts(subtype: str, parts: list[bytes]) -> None:
    head = f"Content-Type: multipart/{subtype}; boundary=cut\r\n\r\n".encode()
    raw = (
        head
        + b"".join(b"--cut\r\nContent-Type: x/y\r\n\r\n" + part + b"\r\n" for part in parts)
        + b"--cut--\r\n"
    )
    ours = summarize(raw)
    assert [content(raw, each) for each in ours.attachments] == parts
