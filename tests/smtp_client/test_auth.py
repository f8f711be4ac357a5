"""Logging in at a smarthost."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import pytest

from relaymail.smtp.client import Credentials, TLSRequirement
from tests.conftest import reactor
from tests.smtp_client.memory import Conversation, failure_of, result
from tests.smtp_client.sending import open_to
from tests.support.rude_host import RudeHost, new_authority, polite, tls_of

PLAIN = base64.b64encode("\0jörg\0geheim ß".encode())


def talk(offered: str, **options: Any) -> Conversation:
    """As far as what the host offers."""
    options = {"clear_credentials": True, **options}
    conversation = Conversation(credentials=Credentials("jörg", "geheim ß"), **options)
    conversation.arrive()
    conversation.host("220 mx.example.test")
    conversation.said()
    conversation.host("250-mx.example.test", f"250 {offered}")
    return conversation


@pytest.mark.parametrize("offered", ["AUTH PLAIN LOGIN", "AUTH LOGIN CRAM-MD5 plain", "AUTH=PLAIN"])
def test_plain_goes_first(offered: str) -> None:
    conversation = talk(offered)
    assert conversation.said() == b"AUTH PLAIN " + PLAIN + b"\r\n"
    conversation.host("235 2.7.0 welcome")
    assert result(conversation.connecting).usable


def test_a_host_may_overlook_the_initial_response() -> None:
    conversation = talk("AUTH PLAIN")
    conversation.said()
    conversation.host("334")
    assert conversation.said() == PLAIN + b"\r\n"
    conversation.host("235 2.7.0 welcome")
    assert result(conversation.connecting).usable


def test_login_in_three_steps() -> None:
    conversation = talk("AUTH LOGIN")
    assert conversation.said() == b"AUTH LOGIN\r\n"
    conversation.host("334 VXNlcm5hbWU6")
    assert base64.b64decode(conversation.said()).decode() == "jörg"
    conversation.host("334 UGFzc3dvcmQ6")
    assert base64.b64decode(conversation.said()).decode() == "geheim ß"
    conversation.host("235 2.7.0 welcome")
    assert result(conversation.connecting).usable


@pytest.mark.parametrize(
    ("replies", "status"),
    [
        (["535 5.7.8 wrong"], "4.7.8"),
        (["454 4.7.0 later"], "4.7.0"),
        (["334 VXNlcm5hbWU6", "535 wrong"], "4.7.8"),
        (["250 what?"], "4.7.0"),
        (["334 A", "334 B", "334 C"], "4.7.0"),
        (["421 4.7.0 too many"], "4.7.0"),
    ],
)
def test_a_refusal_is_temporary_and_shows_no_password(replies: list[str], status: str) -> None:
    conversation = talk("AUTH LOGIN")
    for reply in replies:
        conversation.host(reply)
    failure = failure_of(conversation.connecting)
    assert (failure.phase, failure.status, failure.permanent) == ("auth", status, False)
    assert str(failure.reply) == replies[-1]
    assert "geheim" not in str(failure)
    assert "geheim" not in repr(failure)


def test_mechanisms_that_are_unknown() -> None:
    failure = failure_of(talk("AUTH CRAM-MD5 XOAUTH2").connecting)
    assert (failure.phase, failure.permanent) == ("auth", False)
    failure = failure_of(talk("SIZE").connecting)
    assert failure.phase == "auth"


def test_a_password_does_not_go_in_clear() -> None:
    conversation = talk("AUTH PLAIN LOGIN", clear_credentials=False)
    failure = failure_of(conversation.connecting)
    assert (failure.phase, failure.status) == ("auth", "4.7.0")
    assert b"AUTH" not in conversation.said()


async def test_under_tls_it_goes() -> None:
    tls = tls_of(new_authority())
    script = partial(
        polite, extensions=("AUTH PLAIN",), tls=tls, implicit=True, answers={"AUTH": "235 2.7.0 welcome"}
    )
    async with RudeHost(reactor, script) as host:
        wanted = TLSRequirement.encrypted().implicitly()
        connection = await open_to(host, wanted, credentials=Credentials("jörg", "geheim ß"))
        assert connection.usable
        assert host.session.commands[-1] == f"AUTH PLAIN {PLAIN.decode()}"
