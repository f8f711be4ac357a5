"""The headers put in front of a message, and that nothing a client says gets out of its place in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.message.envelope import Envelope, EnvelopeRecipient, Origin
from relaymail.message.trace import trace_headers

ID = UUID("01234567-89ab-7def-8123-456789abcdef")
AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def trace(
    origin: Origin,
    *recipients: str,
    sender: str = "s@example.org",
    parameters: Mapping[str, str | None] | None = None,
) -> str:
    envelope = Envelope(sender, tuple(map(EnvelopeRecipient, recipients)), parameters or {})
    return trace_headers(ID, AT, "mx.example.test", origin, envelope).decode()


def origin(name: str = "client.example.org", address: str = "192.0.2.1", **facts: Any) -> Origin:
    return Origin("mx", "session", address, name, **facts)


def test_on_the_mx_the_sender_is_recorded_too() -> None:
    assert trace(origin(), "b@example.test") == (
        "Return-Path: <s@example.org>\r\n"
        "Received: from client.example.org ([192.0.2.1])\r\n"
        "\tby mx.example.test with ESMTP\r\n"
        f"\tid {ID}\r\n"
        "\tfor <b@example.test>;\r\n"
        "\tFri, 02 Jan 2026 03:04:05 +0000\r\n"
    )
    assert trace(origin(), "b@example.test", sender="").startswith("Return-Path: <>\r\n")


def test_of_several_recipients_none_is_named() -> None:
    assert " for " not in trace(origin(), "b@example.test", "c@example.test").replace("\t", " ")


def test_an_ipv6_client_is_a_tagged_literal() -> None:
    assert "([IPv6:2001:db8::1])" in trace(origin(address="2001:db8::1"), "b@example.test")


@pytest.mark.parametrize(
    ("facts", "parameters", "protocol"),
    [
        ({"extended": False}, {}, "SMTP"),
        ({}, {}, "ESMTP"),
        ({"tls_version": "TLSv1.3"}, {}, "ESMTPS"),
        ({"login_user_id": ID}, {}, "ESMTPA"),
        ({"tls_version": "TLSv1.3", "login_user_id": ID}, {}, "ESMTPSA"),
        ({}, {"SMTPUTF8": None}, "UTF8SMTP"),
        ({"tls_version": "TLSv1.3", "login_user_id": ID}, {"SMTPUTF8": None}, "UTF8SMTPSA"),
    ],
)
def test_the_protocol_has_its_registered_name(
    facts: dict[str, Any], parameters: dict[str, str | None], protocol: str
) -> None:
    assert f" with {protocol}\r\n" in trace(origin(**facts), "b@example.test", parameters=parameters)


@given(st.text(max_size=2100))
def test_a_client_cannot_get_out_of_its_place_with_its_name(name: str) -> None:
    lines = trace(origin(name=name), "b@example.test").split("\r\n")
    assert len(lines) == 7
    assert re.fullmatch(r"Received: from [A-Za-z0-9._:\[\]?-]* \(\[192\.0\.2\.1\]\)", lines[1])
    assert all(len(line) <= 998 for line in lines)
