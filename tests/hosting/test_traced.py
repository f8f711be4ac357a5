"""What a traced session tells of the parts of a message, and that one that is not traced is the plain one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from twisted.internet.defer import succeed

from relaymail.hosting.session import Hosting, MXSession, SubmissionSession
from relaymail.hosting.traced import TracedMXSession, TracedSubmissionSession, new_session
from relaymail.smtp import reply
from relaymail.smtp.address import parse_mailbox
from relaymail.smtp.content import Content
from relaymail.smtp.reply import ReplyError
from relaymail.smtp.session import Peer
from relaymail.store.database import Database

RAW = b"From: a@example.org\r\nSubject: x\r\n\r\ntext\r\n"


class Recorded:
    """A span or a trace that writes down its end."""

    traceparent = "00-1-2-01"

    def __init__(self, told: list[tuple[str, str | None]], name: str) -> None:
        self._told = told
        self._name = name
        self._over = False

    def end(self, error: str | None = None) -> None:
        if not self._over:
            self._told.append((self._name, error))
        self._over = True


class Trace(Recorded):
    def __init__(self, told: list[tuple[str, str | None]], message_id: UUID) -> None:
        super().__init__(told, "message")
        self.message_id = message_id

    def span(self, name: str) -> Recorded:
        return Recorded(self._told, name.removeprefix("smtp."))


class Recorder:
    """A tracer that traces everything, or nothing."""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted
        self.told: list[tuple[str, str | None]] = []
        self.ids: list[UUID] = []

    def begin(self, message_id: UUID, listener: str, session_id: str) -> Trace | None:
        assert (listener, session_id) == ("mx", "session")
        self.ids.append(message_id)
        return Trace(self.told, message_id) if self.wanted else None

    def notification(self, message_id: UUID) -> Recorded | None:
        raise AssertionError("that is the notifier's")


Begin = Callable[..., TracedMXSession]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def session(hosting: Hosting, recorder: Recorder) -> Any:
    return new_session("mx", recorder)(hosting, Peer("session", "mx", "192.0.2.1", 25, "client", True))


async def content(folder: Path) -> Content:
    made = Content(folder, lambda function, *arguments: succeed(function(*arguments)))
    made.write(RAW)
    return made


async def test_each_part_of_a_stored_message_is_told_and_its_id_is_the_traces(
    session: Any, recorder: Recorder, database: Database, tmp_path: Path
) -> None:
    assert session.mail(parse_mailbox("a@example.org"), {}) is None
    assert await session.recipient(parse_mailbox("postmaster@example.test"), {}) is None
    stored = await session.message(await content(tmp_path))
    session.reset()
    assert recorder.told == [
        ("filter.mail_from", None),
        ("filter.rcpt_to", None),
        ("message.parse", None),
        ("message.save", None),
        ("message", None),
    ]
    assert UUID(stored) == recorder.ids[0]
    rows = await database.query("test.ids", "SELECT id FROM relaymail.message")
    assert rows == [(recorder.ids[0],)]


async def test_a_refused_recipient_ends_its_part_and_not_the_trace(session: Any, recorder: Recorder) -> None:
    session.mail(None, {})
    with pytest.raises(ReplyError):
        session.recipient(parse_mailbox("a@elsewhere.example"), {})
    with pytest.raises(ReplyError):
        await session.recipient(parse_mailbox("nobody@example.test"), {})
    assert recorder.told == [
        ("filter.mail_from", None),
        ("filter.rcpt_to", "550 5.7.1"),
        ("filter.rcpt_to", "550 5.1.1"),
    ]
    session.closed()
    assert recorder.told[-1] == ("message", None)


async def test_a_refused_message_ends_the_trace_with_the_code(
    session: Any, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session.mail(None, {})
    await session.recipient(parse_mailbox("postmaster@example.test"), {})
    monkeypatch.setattr(session, "_check", refuse)
    with pytest.raises(ReplyError):
        await session.message(await content(tmp_path))
    assert recorder.told[-2:] == [("message.parse", None), ("message", "552 5.3.4")]


def refuse(*arguments: object) -> None:
    raise ReplyError(reply.HEADER_TOO_BIG)


def test_a_refused_sender_ends_the_trace(session: Any, recorder: Recorder, hosting: Hosting) -> None:
    session._hosting = Full(hosting)
    with pytest.raises(ReplyError):
        session.mail(None, {})
    assert recorder.told == [("filter.mail_from", "452 4.3.1"), ("message", "452 4.3.1")]
    session.reset()
    assert len(recorder.told) == 2


class Full:
    """What sessions share where there is no room."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hosting, name)

    def room(self) -> reply.Reply:
        return reply.NO_ROOM


async def test_a_message_that_is_not_traced_is_stored_and_nothing_is_told(
    session: Any, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.wanted = False
    session.mail(None, {})
    await session.recipient(parse_mailbox("postmaster@example.test"), {})
    assert await session.message(await content(tmp_path))
    assert recorder.told == []


def test_who_wants_no_traces_gets_the_plain_sessions(recorder: Recorder) -> None:
    assert new_session("mx", None) is MXSession
    assert new_session("submissions", None) is SubmissionSession


def test_submission_is_traced_as_well(hosting: Hosting, recorder: Recorder) -> None:
    made = new_session("submission", recorder)(hosting, Peer("session", "submission", "192.0.2.1", 25))
    assert isinstance(made, TracedSubmissionSession)
