"""Logins."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import bcrypt
import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from relaymail.hosting import authenticator as module
from relaymail.hosting.authenticator import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    Authenticator,
    Login,
)
from relaymail.hosting.key_check import KeyChecker
from relaymail.store.accounts import KEY_REVOKED_CHANNEL, Accounts
from relaymail.store.administration import Administration
from relaymail.store.database import Database
from tests.accounts.conftest import People
from tests.conftest import reactor, run_on_reactor
from tests.support.waiting import until

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()


class SteppedReactor(Clock):
    """Time of a clock, threads of the real reactor."""

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        reactor.callFromThread(callable, *args, **kwargs)


@pytest.fixture
def clock() -> SteppedReactor:
    """The authenticator's reactor, whose time stands still."""
    return SteppedReactor()


@pytest.fixture
def subject(database: Database, clock: SteppedReactor) -> Iterator[Authenticator]:
    """An authenticator on the test's database."""
    made = Authenticator(
        Accounts(database, clock=clock),
        salt=b"salt",
        reactor=clock,
        checker=KeyChecker(reactor),
        now=lambda: datetime(2026, 3, 4, tzinfo=UTC),
    )
    yield made
    run_on_reactor(made.stop())


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that bcrypt was run on, in order."""
    hashes: list[bytes] = []
    real = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        hashes.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return hashes


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds up every bcrypt until it is set."""
    event = threading.Event()
    real = bcrypt.checkpw

    def held(password: bytes, hashed: bytes) -> bool:
        event.wait()
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", held)
    yield event
    event.set()


async def last_used(database: Database) -> list[datetime | None]:
    rows = await database.query("test.used", 'SELECT "LastUsedAt" FROM public."SmtpApiKeys"')
    return [row[0] for row in rows]


async def test_address_and_key_are_a_login_in_any_case_of_the_address(
    subject: Authenticator, people: People
) -> None:
    anna = await people.user("Anna@example.test")
    key = await people.key(anna, KEY)
    assert await subject.verify("ANNA@Example.test", KEY) == Login(anna, "Anna@example.test", key)


async def test_the_key_is_case_sensitive(subject: Authenticator, people: People) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", KEY.swapcase())


async def test_an_additional_address_is_no_login_name(subject: Authenticator, people: People) -> None:
    anna = await people.user("anna@example.test")
    await people.address(anna, "second@example.test")
    await people.key(anna, KEY)
    with pytest.raises(AuthenticationFailed):
        await subject.verify("second@example.test", KEY)


async def test_anothers_key_does_not_open(subject: Authenticator, people: People) -> None:
    await people.user("anna@example.test")
    await people.key(await people.user("bob@example.test"), KEY)
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", KEY)


@pytest.mark.parametrize("scopes", ["[]", '["pop3", "imap"]', "smtp", '{"smtp": true}', "[1]", '"smtp"'])
async def test_a_key_without_the_scope_fails(subject: Authenticator, people: People, scopes: str) -> None:
    await people.key(await people.user("anna@example.test"), KEY, scopes=scopes)
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", KEY)


async def test_a_revoked_key_fails(subject: Authenticator, people: People) -> None:
    await people.key(await people.user("anna@example.test"), KEY, revoked=True)
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", KEY)


async def test_old_keys_without_a_prefix_are_tried_too_but_not_without_end(
    subject: Authenticator, people: People, checks: list[bytes]
) -> None:
    anna = await people.user("anna@example.test")
    old = await people.key(anna, KEY, prefix=None)
    assert (await subject.verify("anna@example.test", KEY)).key_id == old
    for _ in range(15):
        await people.key(anna, OTHER, prefix=None)
    checks.clear()
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", "A" * 44)
    assert len(checks) == 10


async def test_with_a_prefix_one_bcrypt_finds_the_key_among_many(
    subject: Authenticator, people: People, checks: list[bytes]
) -> None:
    anna = await people.user("anna@example.test")
    for n in range(5):
        await people.key(anna, f"{n}" * 44)
    key = await people.key(anna, KEY)
    assert (await subject.verify("anna@example.test", KEY)).key_id == key
    assert len(checks) == 1


async def test_a_table_without_prefixes_is_read_all_the_same(
    subject: Authenticator, people: People, database: Database
) -> None:
    anna = await people.user("anna@example.test")
    key = await people.key(anna, KEY)
    await database.execute("test.old", 'ALTER TABLE public."SmtpApiKeys" DROP COLUMN "KeyPrefix"')
    assert (await subject.verify("anna@example.test", KEY)).key_id == key
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", OTHER)


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("nobody@example.test", KEY),
        ("anna@example.test", OTHER),
        ("anna@example.test", ""),
        ("anna@example.test", "x" * 73),
        ("anna@example.test", KEY + "\0"),
        ("anna@example.test", "\ud800"),
        ("anna\0@example.test", KEY),
        ("", KEY),
    ],
)
async def test_every_wrong_login_costs_exactly_one_bcrypt_of_the_usual_cost(
    subject: Authenticator, people: People, checks: list[bytes], login: str, password: str
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    with pytest.raises(AuthenticationFailed):
        await subject.verify(login, password)
    assert len(checks) == 1
    assert checks[0].startswith(b"$2b$11$")


async def test_a_wrong_key_with_the_right_prefix_costs_one_bcrypt(
    subject: Authenticator, people: People, checks: list[bytes]
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", KEY[:12] + OTHER[12:])
    assert len(checks) == 1


async def test_a_key_of_72_octets_is_right_and_one_more_is_not_cut_off(
    subject: Authenticator, people: People
) -> None:
    anna = await people.user("anna@example.test")
    await people.key(anna, "k" * 72)
    assert (await subject.verify("anna@example.test", "k" * 72)).user_id == anna
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", "k" * 73)


@pytest.mark.parametrize("broken", ["", "rubbish", "$2b$11$tooshort", "$2b$99$" + "a" * 53, "ü" * 60])
async def test_a_hash_that_cannot_be_read_is_passed_over(
    subject: Authenticator, people: People, checks: list[bytes], broken: str
) -> None:
    anna = await people.user("anna@example.test")
    await people.key(anna, KEY, key_hash=broken)
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", KEY)
    good = await people.key(anna, KEY)
    assert (await subject.verify("anna@example.test", KEY)).key_id == good


async def test_a_right_login_is_remembered_for_30_seconds(
    subject: Authenticator, people: People, checks: list[bytes], clock: SteppedReactor
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    await subject.verify("anna@example.test", KEY)
    clock.advance(29.9)
    await subject.verify("Anna@Example.test", KEY)
    assert len(checks) == 1
    clock.advance(0.1)
    await subject.verify("anna@example.test", KEY)
    assert len(checks) == 2


async def test_a_wrong_login_is_not_remembered(
    subject: Authenticator, people: People, checks: list[bytes]
) -> None:
    anna = await people.user("anna@example.test")
    for _ in range(2):
        with pytest.raises(AuthenticationFailed):
            await subject.verify("anna@example.test", KEY)
    assert len(checks) == 2
    await people.key(anna, KEY)
    assert (await subject.verify("anna@example.test", KEY)).user_id == anna


async def test_a_remembered_login_opens_for_no_other_name_or_key(
    subject: Authenticator, people: People
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    await people.user("bob@example.test")
    await subject.verify("anna@example.test", KEY)
    for login, password in (("bob@example.test", KEY), ("anna@example.tes", "t" + KEY)):
        with pytest.raises(AuthenticationFailed):
            await subject.verify(login, password)


async def test_the_key_itself_is_kept_nowhere(subject: Authenticator, people: People) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    await subject.verify("anna@example.test", KEY)
    assert KEY not in repr(vars(subject)) + repr(vars(subject._known))


async def test_the_same_login_ten_times_at_once_costs_one_bcrypt(
    subject: Authenticator, people: People, checks: list[bytes]
) -> None:
    anna = await people.user("anna@example.test")
    await people.key(anna, KEY)
    logins = [Deferred.fromCoroutine(subject.verify("anna@example.test", KEY)) for _ in range(10)]
    assert {login.user_id for login in await gatherResults(logins)} == {anna}
    assert len(checks) == 1


async def test_the_same_wrong_login_at_once_fails_for_all(
    subject: Authenticator, people: People, checks: list[bytes]
) -> None:
    logins = [Deferred.fromCoroutine(subject.verify("anna@example.test", KEY)) for _ in range(5)]
    for login in logins:
        with pytest.raises(AuthenticationFailed):
            await login
    assert len(checks) == 1


async def test_one_client_that_leaves_does_not_take_the_login_from_another(
    subject: Authenticator, people: People
) -> None:
    anna = await people.user("anna@example.test")
    await people.key(anna, KEY)
    leaving, staying = (Deferred.fromCoroutine(subject.verify("anna@example.test", KEY)) for _ in range(2))
    leaving.addErrback(lambda _: None)
    leaving.cancel()
    assert (await staying).user_id == anna


async def test_a_flood_is_turned_away_instead_of_queued(
    database: Database, clock: SteppedReactor, people: People
) -> None:
    checker = KeyChecker(reactor, queue=3)
    subject = Authenticator(Accounts(database, clock=clock), salt=b"", reactor=clock, checker=checker)
    logins = [Deferred.fromCoroutine(subject.verify(f"user{n}@example.test", KEY)) for n in range(8)]
    ends: list[str] = []
    for login in logins:
        try:
            await login
        except (AuthenticationFailed, AuthenticationUnavailable) as error:
            ends.append(type(error).__name__)
    assert ends.count("AuthenticationUnavailable") == 5
    assert ends.count("AuthenticationFailed") == 3
    await subject.stop()


async def test_without_a_database_it_is_unavailable_and_not_failed(
    clock: SteppedReactor, database_parameters: dict[str, str]
) -> None:
    away = Database(database_parameters, reactor=reactor)  # not started
    subject = Authenticator(Accounts(away, clock=clock), salt=b"", reactor=clock, checker=KeyChecker(reactor))
    with pytest.raises(AuthenticationUnavailable):
        await subject.verify("anna@example.test", KEY)
    await subject.stop()
    with pytest.raises(AuthenticationUnavailable):
        await subject.verify("anna@example.test", KEY)


async def test_use_of_keys_is_written_in_batches(
    subject: Authenticator, people: People, database: Database, clock: SteppedReactor
) -> None:
    anna = await people.user("anna@example.test")
    for text in (KEY, OTHER):
        await people.key(anna, text)
        await subject.verify("anna@example.test", text)
    assert await last_used(database) == [None, None]
    clock.advance(module.LAST_USED_SECONDS)
    await until(reactor, lambda: subject._writing is None)
    assert await last_used(database) == [datetime(2026, 3, 4, tzinfo=UTC)] * 2
    assert clock.getDelayedCalls() == []


async def test_stopping_writes_what_was_not_yet_written(
    subject: Authenticator, people: People, database: Database, clock: SteppedReactor
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    await subject.verify("anna@example.test", KEY)
    await subject.stop()
    assert await last_used(database) == [datetime(2026, 3, 4, tzinfo=UTC)]
    assert clock.getDelayedCalls() == []


async def test_stopping_waits_for_a_login_under_way(
    subject: Authenticator,
    people: People,
    database: Database,
    clock: SteppedReactor,
    gate: threading.Event,
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    login = Deferred.fromCoroutine(subject.verify("anna@example.test", KEY))
    await until(reactor, lambda: subject._checker.outstanding > 0)
    stopping = Deferred.fromCoroutine(subject.stop())
    assert not stopping.called
    gate.set()
    await stopping
    assert (await login).email == "anna@example.test"
    assert await last_used(database) == [datetime(2026, 3, 4, tzinfo=UTC)]
    assert clock.getDelayedCalls() == []


async def test_a_later_use_written_by_another_host_stays(
    subject: Authenticator, people: People, database: Database
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    later = datetime(2027, 1, 1, tzinfo=UTC)
    await database.execute("test.later", 'UPDATE public."SmtpApiKeys" SET "LastUsedAt" = %s', (later,))
    await subject.verify("anna@example.test", KEY)
    await subject.stop()
    assert await last_used(database) == [later]


async def test_what_could_not_be_written_is_written_the_next_time(
    subject: Authenticator, people: People, database: Database, clock: SteppedReactor
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    await subject.verify("anna@example.test", KEY)
    await database.execute("test.away", 'ALTER TABLE public."SmtpApiKeys" RENAME TO away')
    clock.advance(module.LAST_USED_SECONDS)
    await until(reactor, lambda: subject._writing is None)
    await database.execute("test.back", 'ALTER TABLE public.away RENAME TO "SmtpApiKeys"')
    assert await last_used(database) == [None]
    clock.advance(module.LAST_USED_SECONDS)
    await until(reactor, lambda: subject._writing is None)
    assert await last_used(database) == [datetime(2026, 3, 4, tzinfo=UTC)]


async def test_a_key_revoked_elsewhere_is_refused_at_once(
    subject: Authenticator, people: People, database: Database, database_parameters: dict[str, str]
) -> None:
    key = await people.key(await people.user("anna@example.test"), KEY)
    subject.listen(database)
    await until(reactor, lambda: subject._revocations > 0)
    await subject.verify("anna@example.test", KEY)
    elsewhere = Database(database_parameters, reactor=reactor)
    elsewhere.start()
    try:
        seen = subject._revocations
        await Administration(elsewhere).revoke_key(str(key))
        await until(reactor, lambda: subject._revocations > seen)
    finally:
        await elsewhere.stop()
    with pytest.raises(AuthenticationFailed):
        await subject.verify("anna@example.test", KEY)


async def test_revoking_one_key_leaves_the_others_remembered(
    subject: Authenticator, people: People, checks: list[bytes]
) -> None:
    anna = await people.user("anna@example.test")
    for text in (KEY, OTHER):
        await people.key(anna, text)
        await subject.verify("anna@example.test", text)
    subject.revoked(str((await subject.verify("anna@example.test", KEY)).key_id))
    await subject.verify("anna@example.test", OTHER)
    assert len(checks) == 2
    await subject.verify("anna@example.test", KEY)
    assert len(checks) == 3


async def test_a_new_connection_forgets_all_for_a_revocation_may_have_been_missed(
    subject: Authenticator, people: People, checks: list[bytes]
) -> None:
    await people.key(await people.user("anna@example.test"), KEY)
    await subject.verify("anna@example.test", KEY)
    subject.revoked("")
    await subject.verify("anna@example.test", KEY)
    assert len(checks) == 2


async def test_a_key_revoked_while_it_is_being_checked_does_not_open(
    subject: Authenticator, people: People, database: Database, gate: threading.Event
) -> None:
    key = await people.key(await people.user("anna@example.test"), KEY)
    login = Deferred.fromCoroutine(subject.verify("anna@example.test", KEY))
    await until(reactor, lambda: subject._checker.outstanding > 0)
    await database.execute("test.revoke", 'UPDATE public."SmtpApiKeys" SET "RevokedAt" = now()')
    subject.revoked(str(key))
    gate.set()
    with pytest.raises(AuthenticationFailed):
        await login


def test_the_channel_is_the_one_agreed_upon() -> None:
    assert KEY_REVOKED_CHANNEL == "relaymail_key_revoked"
