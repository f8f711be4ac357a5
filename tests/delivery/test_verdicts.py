"""What the outcome of a try means for the queue and for the sender."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from relaymail.delivery.retry import DAY, HOUR, Schedule
from relaymail.delivery.verdicts import EXPIRED, Place, Verdicts
from relaymail.smtp.client_mail import Outcome
from relaymail.smtp.client_reply import RemoteReply
from relaymail.store.queue import Job, QueuedRecipient

QUEUED = datetime(2026, 11, 1, tzinfo=UTC)
DEFERRED = Outcome(
    "deferred", "4.2.1", RemoteReply(450, "4.2.1", ("4.2.1 later", "please")), "rcpt", "refused"
)
FAILED = Outcome("failed", "5.1.1", RemoteReply(550, "5.1.1", ("5.1.1 no",)), "rcpt", "refused")
DELIVERED = Outcome("delivered", "2.0.0", RemoteReply(250, "2.0.0", ("2.0.0 ok",)), "final-dot", "taken")


def recipient(
    parameters: Mapping[str, str | None] | None = None, *, attempts: int = 0, warned: bool = False
) -> QueuedRecipient:
    return QueuedRecipient(7, 0, "a@elsewhere.test", parameters or {}, attempts, QUEUED, warned, False)


def job(recipient: QueuedRecipient, sender: str = "user@example.test", login: UUID | None = None) -> Job:
    return Job(uuid4(), uuid4(), "elsewhere.test", 0, sender, {}, 100, QUEUED, login or uuid4(), (recipient,))


def verdicts(age: float = 0.0) -> Verdicts:
    return Verdicts(Schedule(jitter=lambda: 0.5), lambda moment: age)


def test_what_the_host_said_is_kept_exactly() -> None:
    one = recipient(attempts=2)
    made = verdicts(100.0).of(job(one), one, DEFERRED, Place("mx.test", "192.0.2.1", "TLSv1.3"), 1.5)
    assert (made.verdict, made.status, made.reply) == ("deferred", "4.2.1", "450-4.2.1 later\n450 please")
    assert (made.host, made.address, made.tls, made.phase, made.seconds) == (
        "mx.test",
        "192.0.2.1",
        "TLSv1.3",
        "rcpt",
        1.5,
    )
    assert made.delay == 20 * 60
    assert made.owes is None


def test_why_there_was_no_reply_stands_in_its_place() -> None:
    one = recipient()
    silent = Outcome("deferred", "4.4.1", None, "connect", "the host did not answer")
    assert verdicts().of(job(one), one, silent).reply == "the host did not answer"


def test_a_deferral_behind_the_end_of_its_life_is_a_failure() -> None:
    one = recipient(attempts=30)
    made = verdicts(5 * DAY).of(job(one), one, DEFERRED)
    assert (made.verdict, made.status, made.owes) == ("failed", EXPIRED, "failed")
    assert made.reply == "450-4.2.1 later\n450 please"
    null = verdicts(1 * DAY).of(job(one, sender=""), one, DEFERRED)
    assert (null.verdict, null.owes) == ("failed", "failed")


def test_what_was_never_tried_keeps_what_was_last_heard() -> None:
    one = recipient()
    made = verdicts(6 * DAY).expired(job(one), one)
    assert (made.verdict, made.status, made.reply, made.owes) == ("failed", EXPIRED, None, "failed")


@pytest.mark.parametrize(
    ("outcome", "notify", "owes"),
    [
        (FAILED, None, "failed"),
        (FAILED, "FAILURE,DELAY", "failed"),
        (FAILED, "SUCCESS", None),
        (FAILED, "NEVER", None),
        (DELIVERED, None, None),
        (DELIVERED, "SUCCESS,FAILURE", "relayed"),
        (DELIVERED, "NEVER", None),
    ],
)
def test_a_report_is_owed_where_it_was_asked_for(
    outcome: Outcome, notify: str | None, owes: str | None
) -> None:
    one = recipient({} if notify is None else {"NOTIFY": notify})
    assert verdicts().of(job(one), one, outcome).owes == owes


@pytest.mark.parametrize("notify", [None, "NEVER", "SUCCESS,DELAY"])
def test_what_becomes_of_mail_from_the_null_sender_is_only_noted_where_it_gets_nowhere(
    notify: str | None,
) -> None:
    one = recipient({} if notify is None else {"NOTIFY": notify})
    null = job(one, sender="")
    assert verdicts().of(null, one, FAILED).owes == "failed"
    assert verdicts(6 * DAY).expired(null, one).owes == "failed"
    assert verdicts().of(null, one, DELIVERED).owes is None
    assert verdicts(5 * HOUR).of(null, one, DEFERRED).owes is None


def test_a_host_that_knows_dsn_reports_itself() -> None:
    one = recipient({"NOTIFY": "SUCCESS"})
    taken_over = Outcome("delivered", "2.0.0", None, "final-dot", "taken", dsn_taken_over=True)
    assert verdicts().of(job(one), one, taken_over).owes is None


def test_a_delay_is_told_once_and_to_our_own_users_only() -> None:
    def owes(age: float, one: QueuedRecipient, made: Job | None = None) -> str | None:
        return verdicts(age).of(made or job(one), one, DEFERRED).owes

    assert owes(4 * HOUR - 1, recipient()) is None
    assert owes(4 * HOUR, recipient()) == "delayed"
    assert owes(9 * HOUR, recipient(warned=True)) is None
    assert owes(4 * HOUR, recipient({"NOTIFY": "FAILURE"})) is None
    assert owes(4 * HOUR, recipient({"NOTIFY": "FAILURE,DELAY"})) == "delayed"
    one = recipient()
    foreign = Job(uuid4(), uuid4(), "elsewhere.test", 0, "a@b.test", {}, 1, QUEUED, None, (one,))
    assert owes(4 * HOUR, one, foreign) is None


def test_a_reply_that_did_not_come_is_in_doubt() -> None:
    one = recipient()
    lost = Outcome("deferred", "4.4.2", None, "final-dot", "the connection was lost", in_doubt=True)
    assert verdicts().of(job(one), one, lost).in_doubt
