"""What a host may do before it is told of mail: not be there, refuse us, know no EHLO or no STARTTLS."""

from __future__ import annotations

from functools import partial

import pytest

from relaymail.smtp.client import TLSRequirement
from tests.conftest import reactor
from tests.smtp_client.sending import OUR_NAME, one_outcome, open_to, refusal_of
from tests.support import rude_host
from tests.support.ipv6 import needs_ipv6
from tests.support.rude_host import RudeHost, Script, polite
from tests.support.waiting import until


async def test_a_5xx_greeting_is_for_the_next_host() -> None:
    async with RudeHost(reactor, rude_host.refuses_the_greeting) as host:
        failure = await refusal_of(host)
        assert failure.permanent
        assert (failure.phase, failure.status) == ("greeting", "5.7.1")
        assert str(failure.reply) == "554 5.7.1 we do not talk to you"
        assert not failure.tls_failed
        await until(reactor, lambda: host.session.gone)


async def test_a_busy_host_is_busy_for_now() -> None:
    async with RudeHost(reactor, rude_host.is_busy_at_the_greeting) as host:
        failure = await refusal_of(host)
        assert not failure.permanent
        assert (failure.phase, failure.status) == ("greeting", "4.3.2")


async def test_says_helo_to_a_host_of_old() -> None:
    async with RudeHost(reactor, rude_host.knows_no_ehlo) as host:
        outcome = await one_outcome(host)
        assert outcome.verdict == "delivered"
        assert host.session.commands[1:3] == [f"HELO {OUR_NAME}", "MAIL FROM:<sender@example.org>"]


@pytest.mark.parametrize(
    ("answers", "status", "permanent"),
    [
        ({"EHLO": "550 5.7.1 bad name", "HELO": "550 5.7.1 bad name"}, "5.7.1", True),
        ({"EHLO": "500 what?", "HELO": "450 4.7.1 later"}, "4.7.1", False),
        ({"EHLO": "451 4.3.0 later"}, "4.3.0", False),
        ({"EHLO": "354 go ahead"}, "4.5.0", False),
    ],
)
async def test_a_host_may_refuse_our_name(
    answers: dict[str, rude_host.Answer], status: str, permanent: bool
) -> None:
    async with RudeHost(reactor, partial(polite, answers=answers)) as host:
        failure = await refusal_of(host)
        assert (failure.phase, failure.status, failure.permanent) == ("ehlo", status, permanent)


async def test_nobody_listens() -> None:
    async with RudeHost(reactor, polite) as host:
        pass
    failure = await refusal_of(host)
    assert (failure.phase, failure.status, failure.reply) == ("connect", "4.4.1", None)


@pytest.mark.parametrize("script", [rude_host.never_ends_a_reply, rude_host.never_ends_a_line])
async def test_an_endless_reply_is_cut(script: Script) -> None:
    async with RudeHost(reactor, script) as host:
        failure = await refusal_of(host)
        assert (failure.phase, failure.status) == ("ehlo", "4.5.0")
        await until(reactor, lambda: host.session.gone)


async def test_connects_from_where_it_is_told() -> None:
    async with RudeHost(reactor, polite) as host:
        await open_to(host, bind_address="127.0.0.2")
        assert host.session.transport.getPeer().host == "127.0.0.2"


@needs_ipv6
async def test_connects_over_ipv6() -> None:
    async with RudeHost(reactor, polite, interface="::1") as host:
        assert (await one_outcome(host)).verdict == "delivered"


async def test_starttls_that_is_refused_is_done_without() -> None:
    async with RudeHost(reactor, rude_host.offers_starttls_and_refuses_it) as host:
        assert (await one_outcome(host)).verdict == "delivered"
        failure = await refusal_of(host, TLSRequirement.encrypted())
        assert (failure.tls_problem, failure.status, failure.permanent) == ("refused", "4.7.4", False)
