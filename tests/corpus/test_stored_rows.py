"""Every message of the corpus is stored; all its rows are held against what is expected, column by column."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from relaymail.message.record import Record
from tests.corpus.cases import BOB, MESSAGES, Case, Expected, small
from tests.corpus.conftest import Row, Stored
from tests.corpus.large import LARGE
from tests.store.records import ORIGIN

CASES = {**small(), **LARGE}
GENERATED = re.compile(r"[0-9a-f-]{36}@example\.test")


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 200


def test_every_file_has_a_message_and_an_expectation() -> None:
    assert {path.stem for path in MESSAGES.glob("*.json")} == set(small())


def test_the_rows_are_as_expected(name: str, stored: Stored) -> None:
    make: Callable[[], Case] = CASES[name]
    case = make()
    record = stored.records[name]
    (email_id,) = (email.id for email in record.emails)
    email = _check_email(stored, email_id, record, case)
    _check_recipients(stored, email_id, case.expected)
    _check_attachments(stored, email_id, case.expected)
    _check_message(stored, record, case, email)
    _check_outbox(stored, record, email, bool(case.expected.attachments))


def _check_email(stored: Stored, email_id: UUID, record: Record, case: Case) -> Row:
    (row,) = stored.rows('public."Emails"', '"Id"', email_id)
    expected = case.expected.email
    message_id = row["MessageId"]
    if expected.message_id is None:
        assert GENERATED.fullmatch(message_id)
    else:
        assert message_id == expected.message_id
    wanted = {
        "Id": email_id,
        "MessageId": message_id,
        "FromAddress": expected.from_address,
        "FromDisplayName": expected.from_display_name,
        "Subject": expected.subject,
        "TextBody": expected.text_body,
        "HtmlBody": expected.html_body,
        "ReceivedAt": record.received_at,
        "SizeBytes": len(case.raw),
        "InReplyTo": expected.in_reply_to,
        "References": expected.references,
        "ThreadId": email_id,
        "SentByUserId": None,
    }
    _same([row], [wanted])
    # The IMAP host takes its first four octets for the UID
    assert email_id.version == 4
    return row


def _check_recipients(stored: Stored, email_id: UUID, expected: Expected) -> None:
    rows = stored.rows('public."EmailRecipients"', '"EmailId"', email_id)
    assert len({row.pop("Id") for row in rows}) == len(expected.recipients)
    wanted = [
        {
            "EmailId": email_id,
            "Address": each.address,
            "DisplayName": each.display_name,
            "Type": each.type,
            "UserId": stored.bob if each.user_id else None,
            "IsRead": False,
        }
        for each in expected.recipients
    ]
    _same(sorted(rows, key=_address), sorted(wanted, key=_address))


def _address(row: Row) -> Any:
    return row["Address"]


def _check_attachments(stored: Stored, email_id: UUID, expected: Expected) -> None:
    rows = stored.rows('public."EmailAttachments"', '"EmailId"', email_id)
    assert len({row.pop("Id") for row in rows}) == len(expected.attachments)
    wanted = [
        {
            "EmailId": email_id,
            "FileName": each.file_name,
            "ContentType": each.content_type,
            "SizeBytes": each.size_bytes,
            "Content": each.octets,
        }
        for each in expected.attachments
    ]
    _same(sorted(rows, key=_content), sorted(wanted, key=_content))
    assert all(row["SizeBytes"] == len(row["Content"]) for row in rows)


def _content(row: Row) -> Any:
    return row["FileName"], row["Content"]


def _check_message(stored: Stored, record: Record, case: Case, email: Row) -> None:
    (row,) = stored.rows("relaymail.message", "id", record.id)
    # What else there is says something of submissions, or of mail that is held
    wanted = dict.fromkeys(row) | {
        "id": record.id,
        "received_at": record.received_at,
        "listener": "mx",
        "session_id": ORIGIN.session_id,
        "client_address": ORIGIN.client_address,
        "client_name": ORIGIN.client_name,
        "login_user_id": None,
        "tls_version": None,
        "tls_cipher": None,
        "reverse_path": "s@example.org",
        "mail_parameters": None,
        "size_bytes": len(case.raw),
        "sha256": hashlib.sha256(case.raw).digest(),
        "dedupe_key": None,
        "trace_headers": record.trace_headers,
        "message_id": email["MessageId"],
        "from_address": email["FromAddress"],
        "subject": email["Subject"],
        "parse_status": case.expected.parse_status,
        "email_ids": [email["Id"]],
    }
    _same([row], [wanted])
    parts = stored.rows("relaymail.message_part", "message_id", record.id, "n")
    assert [part["n"] for part in parts] == list(range(len(parts)))
    _same([{"raw": b"".join(part["content"] for part in parts)}], [{"raw": case.raw}])
    (recipient,) = stored.rows("relaymail.envelope_recipient", "message_id", record.id)
    assert recipient["address"] == BOB
    assert recipient["user_id"] == stored.bob
    assert [event["kind"] for event in stored.rows("relaymail.event", "message_id", record.id)] == [
        "accepted"
    ]


def _check_outbox(stored: Stored, record: Record, email: Row, has_attachments: bool) -> None:
    (row,) = stored.rows("relaymail.outbox", "message_id", record.id)
    payload = row["payload"] if isinstance(row["payload"], dict) else json.loads(row["payload"])
    assert payload["userIds"] == [str(stored.bob)]
    told = payload["email"]
    assert told.pop("receivedAt").startswith(record.received_at.isoformat()[:19])
    assert told == {
        "id": str(email["Id"]),
        "from": email["FromAddress"],
        "fromDisplay": email["FromDisplayName"],
        "subject": email["Subject"],
        "hasAttachments": has_attachments,
    }


def _same(rows: list[Row], wanted: list[Row]) -> None:
    """As ``==``; but of values of megabytes only the beginning is shown."""
    assert len(rows) == len(wanted)
    for row, each in zip(rows, wanted, strict=True):
        assert row.keys() == each.keys()
        for column, value in each.items():
            if row[column] != value:
                pytest.fail(f"{column} is {row[column]!r:.300}, not {value!r:.300}")
