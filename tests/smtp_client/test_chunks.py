"""Mail in chunks (BDAT, RFC 3030), over real sockets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from tests.conftest import reactor
from tests.smtp_client.sending import in_parts, mail, open_to
from tests.support import rude_host
from tests.support.rude_host import EXTENSIONS, RudeHost, Session, polite
from tests.support.waiting import until

OFFERED = (*EXTENSIONS, "CHUNKING", "BINARYMIME")


@pytest.mark.parametrize("size", [0, 1, 262_144, 262_145, 1_000_000])
async def test_binary_mail_goes_as_it_is(size: int) -> None:
    body = (b"\r.\n\0\xff\r\n.\r\n" * (size // 10 + 1))[:size]
    async with RudeHost(reactor, partial(polite, extensions=OFFERED)) as host:
        connection = await open_to(host)
        for _ in range(2):
            parts = in_parts([body[at : at + 70_000] for at in range(0, size, 70_000)])
            (outcome,) = await connection.send(mail(binary=True), parts)
            assert outcome.verdict == "delivered"
        assert host.session.messages == [body, body]
        assert "BODY=BINARYMIME" in host.session.commands[1]
        assert host.session.commands[3].startswith("BDAT ")
        assert "RSET" not in host.session.commands


async def test_the_last_chunk_waits_for_the_lease() -> None:
    async def no(accepted: Sequence[int]) -> bool:
        return False

    async with RudeHost(reactor, partial(polite, extensions=OFFERED)) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(binary=True), b"x" * 600_000, no)
        assert outcome.phase == "before-dot"
        await until(reactor, lambda: host.session.gone)
        assert host.session.messages == []
        assert sum(line.startswith("BDAT") for line in host.session.commands) == 2


@pytest.mark.parametrize(
    ("answer", "verdict", "status"),
    [("552 5.3.4 enough", "failed", "5.3.4"), ("354 what?", "deferred", "4.5.0")],
)
async def test_a_chunk_that_others_follow_may_be_refused(answer: str, verdict: str, status: str) -> None:
    async def refuse(session: Session, line: str) -> None:
        await session.chunk(line)
        session.say(answer)

    answers: dict[str, rude_host.Answer] = {"BDAT": refuse}
    async with RudeHost(reactor, partial(polite, extensions=OFFERED, answers=answers)) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(binary=True), b"x" * 600_000)
        assert (outcome.verdict, outcome.status, outcome.phase) == (verdict, status, "transfer")
        assert not outcome.in_doubt
        assert sum(line.startswith("BDAT") for line in host.session.commands) == 1
        if verdict == "failed":
            answers.clear()
            (outcome,) = await connection.send(mail(binary=True), b"x")
            assert outcome.verdict == "delivered"
            assert "RSET" in host.session.commands


async def test_a_host_that_lies_about_chunks_refuses_them() -> None:
    async with RudeHost(reactor, rude_host.offers_chunking_and_refuses_it) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(binary=True), b"x")
        assert (outcome.verdict, outcome.phase) == ("failed", "final-dot")
