"""Reports of delivery: their three parts, as Python's ``email`` reads them, whatever was in the original."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relaymail.message.dsn import (
    MOST_RETURNED,
    Excerpt,
    Original,
    Report,
    ReportedRecipient,
    build,
    mail_parameters,
)
from relaymail.message.summary import summarize

NOW = datetime(2026, 1, 31, 12, 0, 5, 123456, UTC)
RAW = (
    b"From: anna@example.test\r\nTo: bob@example.org\r\nSubject: Lunch\r\n"
    b"Message-ID: <o@example.test>\r\n\r\nhi\r\n"
)
BOB = ReportedRecipient(
    "bob@example.org",
    "failed",
    "5.1.1",
    ("rfc822", "Bob@Example.org"),
    "mx.example.org",
    "550-5.1.1 <bob@example.org>: no such user\n550 5.1.1 see https://example.org/why",
    NOW,
)
REPORT = Report(
    message_id="r@mail.example.test",
    at=NOW,
    reporting_mta="mail.example.test",
    author="postmaster@example.test",
    to="anna@example.test",
    recipients=[BOB],
    arrived_at=NOW - timedelta(hours=5),
    original=Original(RAW.partition(b"\r\n\r\n")[0] + b"\r\n", b"hi\r\n"),
    original_id="o@example.test",
    original_subject="Lunch",
    envelope_id="QQ314",
)


def excerpt(raw: bytes, *, whole: bool = True, limit: int = MOST_RETURNED, cut: int = 1000) -> Original:
    reading = Excerpt(limit, whole=whole)
    for start in range(0, len(raw), cut):
        if not reading.feed(raw[start : start + cut]):
            break
    return reading.finish()


def read(report: Report) -> EmailMessage:
    """The report as a reader sees it; it is checked to be one that any transport takes."""
    raw = build(report)
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert b"\0" not in raw
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert len(message.get_payload()) == 3
    assert not message.defects
    return message


def part(message: EmailMessage, number: int) -> Message:
    found: Message = list(message.iter_parts())[number]
    return found


def groups(message: EmailMessage) -> list[dict[str, str]]:
    """The fields of the part for programs: those of the message, and those of each recipient."""
    status = part(message, 1)
    if status.get_content_type() == "message/delivery-status":
        blocks: Any = status.get_payload()
        return [{name: " ".join(value.split()) for name, value in block.items()} for block in blocks]
    text = build_text(status)
    return [dict(line.split(": ", 1) for line in block.split("\r\n")) for block in text.split("\r\n\r\n")]


def build_text(status: Message) -> str:
    content = status.as_bytes(policy=email.policy.SMTPUTF8).partition(b"\r\n\r\n")[2]
    return content.decode().strip().replace("\r\n ", " ")


def text_of(message: EmailMessage) -> str:
    first = part(message, 0)
    assert isinstance(first, EmailMessage)
    return str(first.get_content()).replace("\r\n", "\n")


def test_a_failure_has_the_fields_that_programs_read() -> None:
    of_message, bob = groups(read(REPORT))
    assert of_message == {
        "Reporting-MTA": "dns; mail.example.test",
        "Original-Envelope-Id": "QQ314",
        "Arrival-Date": "Sat, 31 Jan 2026 07:00:05 +0000",
    }
    assert bob == {
        "Original-Recipient": "rfc822;Bob@Example.org",
        "Final-Recipient": "rfc822;bob@example.org",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.org",
        "Diagnostic-Code": "smtp; 550-5.1.1 <bob@example.org>: no such user "
        "550 5.1.1 see https://example.org/why",
        "Last-Attempt-Date": "Sat, 31 Jan 2026 12:00:05 +0000",
    }


def test_a_failure_tells_people_who_what_and_what_to_do() -> None:
    text = text_of(read(REPORT))
    for words in (
        "could not be delivered to this recipient",
        "bob@example.org",
        "given by you as Bob@Example.org",
        "mx.example.org said",
        "550-5.1.1 <bob@example.org>: no such user\n",
        "550 5.1.1 see https://example.org/why",
        "does not exist there",
        "We do not try again",
        "Lunch",
    ):
        assert words in text


def test_its_header_says_where_it_belongs_and_that_nobody_is_to_answer() -> None:
    message = read(REPORT)
    assert message["From"] == "Mail Delivery System <postmaster@example.test>"
    assert message["To"] == "anna@example.test"
    assert message["Subject"] == "Undeliverable: Lunch"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert message["Date"] == "Sat, 31 Jan 2026 12:00:05 +0000"
    assert message["Message-ID"] == "<r@mail.example.test>"
    assert message["In-Reply-To"] == "<o@example.test>"
    assert message["References"] == "<o@example.test>"


def test_it_is_in_the_thread_of_the_original() -> None:
    header = b"References: <a@x> <b@x>\r\n <c@x>\r\nSubject: Re: Lunch\r\n"
    message = read(replace(REPORT, original=Original(header, None)))
    assert message["References"].split() == ["<a@x>", "<b@x>", "<c@x>", "<o@example.test>"]
    summary = summarize(build(replace(REPORT, original=Original(header, None))))
    assert summary.in_reply_to == "o@example.test"
    assert summary.parse_status == "complete"
    many = b"References: " + b"\r\n ".join(b"<%d@x>" % n for n in range(500)) + b"\r\n"
    ids = read(replace(REPORT, original=Original(many, None)))["References"].split()
    assert len(ids) < 30
    assert (ids[0], ids[-1]) == ("<0@x>", "<o@example.test>")


def test_a_delay_says_until_when_we_try() -> None:
    late = replace(
        BOB,
        action="delayed",
        status="4.4.1",
        reply="no answer",
        host=None,
        retry_until=NOW + timedelta(days=5),
    )
    message = read(replace(REPORT, recipients=[late]))
    _, bob = groups(message)
    assert bob["Action"] == "delayed"
    assert bob["Will-Retry-Until"] == "Thu, 05 Feb 2026 12:00:05 +0000"
    assert "Remote-MTA" not in bob
    assert bob["Diagnostic-Code"] == "x-relaymail; no answer"
    text = text_of(message)
    assert "We go on trying until Thursday, 05 February 2026, 12:00 UTC." in text
    assert "need not do anything" in text
    assert message["Subject"] == "Delayed: Lunch"


@pytest.mark.parametrize(
    ("action", "subject", "words"),
    [("delivered", "Delivered", "was delivered to"), ("relayed", "Handed on", "no more of it")],
)
def test_a_success_says_so(action: str, subject: str, words: str) -> None:
    good = replace(BOB, action=action, status="2.1.5", reply="250 2.1.5 ok")  # type: ignore[arg-type]
    message = read(replace(REPORT, recipients=[good]))
    assert message["Subject"] == f"{subject}: Lunch"
    assert words in text_of(message)
    assert groups(message)[1]["Action"] == action


def test_several_recipients_are_in_one_report() -> None:
    many = [replace(BOB, address=f"u{n}@example.org", original=None) for n in range(120)]
    message = read(replace(REPORT, recipients=many))
    found = groups(message)
    assert [group["Final-Recipient"] for group in found[1:]] == [
        f"rfc822;u{n}@example.org" for n in range(120)
    ]
    text = text_of(message)
    assert "these recipients" in text
    assert "and 70 more" in text


def test_without_status_the_class_is_that_of_the_action() -> None:
    bare = ReportedRecipient("b@example.org", "failed")
    _, fields = groups(read(replace(REPORT, recipients=[bare], envelope_id=None)))
    assert fields == {"Final-Recipient": "rfc822;b@example.org", "Action": "failed", "Status": "5.0.0"}


# What is returned


def test_a_short_original_is_returned_whole() -> None:
    original = excerpt(RAW)
    third = part(read(replace(REPORT, original=original)), 2)
    assert third.get_content_type() == "message/rfc822"
    assert RAW in build(replace(REPORT, original=original))


def test_of_a_long_original_or_on_demand_the_header_is_returned() -> None:
    for original in (excerpt(RAW + b"x\r\n" * MOST_RETURNED), excerpt(RAW, whole=False)):
        third = part(read(replace(REPORT, original=original)), 2)
        assert third.get_content_type() == "text/rfc822-headers"
        assert original.header == RAW.partition(b"\r\n\r\n")[0] + b"\r\n"
        assert original.header in build(replace(REPORT, original=original))


def test_of_an_endless_header_the_first_fields_are_returned() -> None:
    raw = b"From: a@b\r\n" + b"X-Long: y\r\n" * 10_000 + b"\r\nbody"
    header = excerpt(raw).header
    assert MOST_RETURNED - 20 < len(header) <= MOST_RETURNED
    assert header.endswith(b"X-Long: y\r\n")
    read(replace(REPORT, original=Original(header, None)))
    read(replace(REPORT, original=excerpt(b"X: " + b"y" * 100_000)))


def test_reading_stops_where_more_is_of_no_use() -> None:
    header_only = Excerpt(1000, whole=False)
    assert header_only.feed(b"A: b\r\n")
    assert not header_only.feed(b"\r\nbody")
    whole = Excerpt(1000, whole=True)
    assert whole.feed(b"A: b\r\n\r\nbody")
    assert not whole.feed(b"x" * 2000)


@pytest.mark.parametrize(
    ("raw", "kind", "encoding"),
    [
        (b"A: b\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n", "message/rfc822", "8bit"),
        ("A: grüße\r\n\r\nx\r\n".encode(), "message/global", "8bit"),
        (b"A: gr\xfc\xdfe\r\n\r\nx\r\n", "text/rfc822-headers", "quoted-printable"),
        (b"A: b\r\n\r\nNUL \0\r\n", "text/rfc822-headers", "7bit"),
        (b"A: b\r\n\r\nbare \r here\r\n", "text/rfc822-headers", "7bit"),
        (b"A: b\r\n\r\n" + b"x" * 999 + b"\r\n", "text/rfc822-headers", "7bit"),
        (b"A: " + b"x" * 5000 + b"\r\n\r\nx\r\n", "text/rfc822-headers", "quoted-printable"),
        (b"A: bare\r\n\tfold\r and\0\r\n\r\nx", "text/rfc822-headers", "quoted-printable"),
        (b"", "text/rfc822-headers", "7bit"),
        (b"\r\nonly a body\r\n", "message/rfc822", "7bit"),
    ],
)
def test_what_no_part_could_carry_is_not_returned_raw(raw: bytes, kind: str, encoding: str) -> None:
    original = excerpt(raw)
    third = part(read(replace(REPORT, original=original)), 2)
    assert third.get_content_type() == kind
    assert third["Content-Transfer-Encoding"] == encoding
    if encoding == "quoted-printable":
        assert third.get_payload(decode=True) == original.header


NASTY = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b"\0", b"--", b"report-", b"\xff", b"\xc3\xa4", b" ", b"\t", b"a", b":", b"=",
         b"From ", b"Content-Type: multipart/mixed; boundary=x", b"--x--", b"X: y", b"A" * 1000]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(NASTY, st.booleans(), st.integers(1, 2000), st.text(max_size=30), st.text(max_size=300))
@example(b"\r\n--report-", True, 1, "a\r\nBcc: x@y", "550 a\r\n\r\nContent-Type: x\r\n.\r\n")
def test_nothing_breaks_its_structure(raw: bytes, whole: bool, limit: int, subject: str, reply: str) -> None:
    hostile = replace(BOB, reply=reply, host=subject, address=f"{subject}@example.org", status=subject)
    message = read(
        replace(
            REPORT,
            original=excerpt(raw, whole=whole, limit=limit),
            original_subject=subject,
            original_id=subject,
            recipients=[hostile, BOB],
            envelope_id=reply,
        )
    )
    assert message["To"] == "anna@example.test"
    assert message["Bcc"] is None
    if part(message, 1).get_content_type() == "message/delivery-status":
        found = groups(message)
        assert len(found) == 3
        assert found[2]["Final-Recipient"] == "rfc822;bob@example.org"


def test_the_boundary_is_not_in_the_original() -> None:
    first = build(REPORT)
    boundary = email.message_from_bytes(first).get_boundary()
    assert boundary is not None
    stolen = Original(RAW, f"--{boundary}\r\n--{boundary}--\r\n".encode())
    assert email.message_from_bytes(build(replace(REPORT, original=stolen))).get_boundary() != boundary
    read(replace(REPORT, original=stolen))


def test_replies_are_clipped() -> None:
    endless = replace(BOB, reply="\n".join(["550-" + "x" * 3000] * 500), host="mx.example.org")
    raw = build(replace(REPORT, recipients=[endless] * 10))
    assert len(raw) < 60_000
    assert b"[...]" in raw


def test_control_characters_of_a_reply_are_shown_and_not_sent() -> None:
    rude = replace(BOB, reply="550 5.1.1 \x1b[2Jgone\x07 \u202e")
    message = read(replace(REPORT, recipients=[rude]))
    assert r"550 5.1.1 \x1b[2Jgone\x07 \u202e" in text_of(message)
    assert groups(message)[1]["Diagnostic-Code"] == r"smtp; 550 5.1.1 \x1b[2Jgone\x07 \u202e"


# Internationalized mail (RFC 6533)


def test_an_internationalized_recipient_makes_the_part_a_global_one() -> None:
    recipient = replace(BOB, address="jürgen@bücher.example", original=("utf-8", "jürgen@bücher.example"))
    message = read(replace(REPORT, recipients=[recipient]))
    status = part(message, 1)
    assert status.get_content_type() == "message/global-delivery-status"
    assert status["Content-Transfer-Encoding"] == "8bit"
    assert message["Content-Transfer-Encoding"] == "8bit"
    fields = groups(message)[1]
    assert fields["Final-Recipient"] == "utf-8;jürgen@bücher.example"
    assert fields["Original-Recipient"] == "utf-8;jürgen@bücher.example"
    assert "jürgen@bücher.example" in text_of(message)


def test_an_ascii_report_writes_the_rest_in_ascii() -> None:
    recipient = replace(BOB, original=("utf-8", "a+b@example.org"), reply="550 grüße")
    message = read(replace(REPORT, recipients=[recipient]))
    assert part(message, 1).get_content_type() == "message/delivery-status"
    fields = groups(message)[1]
    assert fields["Original-Recipient"] == r"utf-8;a\x{2B}b@example.org"
    assert fields["Diagnostic-Code"] == r"smtp; 550 gr\x{FC}\x{DF}e"


def test_an_internationalized_sender_is_written_to_as_one() -> None:
    raw = build(replace(REPORT, to="jürgen@example.test", original_id="ö@example.test"))
    assert "To: <jürgen@example.test>\r\n".encode() in raw
    assert "In-Reply-To: <ö@example.test>\r\n".encode() in raw
    assert mail_parameters(raw) == {"BODY": "8BITMIME", "SMTPUTF8": None}
    raw = build(replace(REPORT, original_id="ö@example.test"))
    assert b"In-Reply-To" not in raw
    assert mail_parameters(raw) == {}
    assert mail_parameters(build(replace(REPORT, original=excerpt(b"A: b\r\n\r\n\xe4")))) == {
        "BODY": "8BITMIME"
    }


def test_a_subject_beyond_ascii_is_encoded() -> None:
    subject = "Grüße " + "ü" * 150
    raw = build(replace(REPORT, original_subject=subject))
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Subject"] == f"Undeliverable: {subject}"
    assert raw.partition(b"\r\n\r\n")[0].isascii()
