"""Durable acceptance: one transaction a message, one COMMIT for many, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred, TimeoutError, gatherResults, maybeDeferred

from relaymail.message.record import Record
from relaymail.store.database import Database, DatabaseError, DatabaseUnavailable
from relaymail.store.messages import MessageStore
from tests.conftest import reactor, run_on_reactor
from tests.store.records import again, record
from tests.support.proxy import CuttingProxy
from tests.support.waiting import until

PLAIN = b"From: s@example.org\r\nTo: u@example.test\r\nSubject: hello\r\nMessage-ID: <one@x>\r\n\r\ntext\r\n"


@pytest.fixture
def store(database: Database) -> MessageStore:
    return MessageStore(database, reactor=reactor, run=maybeDeferred)


async def add_user(database: Database, email: str) -> UUID:
    user = uuid4()
    await database.execute(
        "test.user",
        'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt")'
        " VALUES (%s, %s, 'test', %s, now())",
        (user, str(user), email),
    )
    return user


async def count(database: Database, table: str) -> int:
    number: int = (await database.query("test.count", f"SELECT count(*) FROM {table}"))[0][0]
    return number


async def stored_bytes(database: Database, message: UUID) -> bytes:
    parts = await database.query(
        "test.parts",
        "SELECT content FROM relaymail.message_part WHERE message_id = %s ORDER BY n",
        (message,),
    )
    return b"".join(part for (part,) in parts)


def accept_all(store: MessageStore, records: list[Record]) -> Deferred[list[UUID]]:
    return gatherResults([Deferred.fromCoroutine(store.accept(r)) for r in records], consumeErrors=True)


@pytest.mark.parametrize(
    ("body", "expected", "in_a_thread"),
    [(b"QUJD" * 30_000, b"ABC" * 30_000, False), (b"QQ==\r\n" * 30_000, b"A" * 30_000, True)],
)
async def test_what_takes_long_to_decode_does_not_hold_up_the_reactor(
    body: bytes, expected: bytes, in_a_thread: bool, database: Database, tmp_path: Path
) -> None:
    ran: list[object] = []

    def run(function: Any, *arguments: Any) -> Any:
        ran.append(function)
        return maybeDeferred(function, *arguments)

    store = MessageStore(database, reactor=reactor, run=run)
    raw = b"Content-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body
    await store.accept(await record(raw, tmp_path))
    ((content,),) = await database.query("test.content", 'SELECT "Content" FROM public."EmailAttachments"')
    assert content == expected
    assert bool(ran) == in_a_thread


async def test_everything_of_a_message_is_stored(
    store: MessageStore, database: Database, tmp_path: Path
) -> None:
    user = await add_user(database, "u@example.test")
    message = await record(PLAIN, tmp_path, users={"u@example.test": user})
    assert await store.accept(message) == message.id
    assert await stored_bytes(database, message.id) == PLAIN
    ((email, recipient, owner),) = await database.query(
        "test.email",
        'SELECT e."Id", r."Address", r."UserId" FROM public."Emails" e'
        ' JOIN public."EmailRecipients" r ON r."EmailId" = e."Id"',
    )
    assert (email, recipient, owner) == (message.emails[0].id, "u@example.test", user)
    ((payload,),) = await database.query("test.outbox", "SELECT payload FROM relaymail.outbox")
    assert payload["userIds"] == [str(user)]
    assert payload["email"] == {
        "id": str(email),
        "from": "s@example.org",
        "fromDisplay": None,
        "subject": "hello",
        "receivedAt": message.received_at.isoformat().replace("+00:00", "Z"),
        "hasAttachments": False,
    }
    assert await database.query("test.event", "SELECT message_id, kind FROM relaymail.event") == [
        (message.id, "accepted")
    ]


async def test_messages_that_wait_share_a_commit(database_parameters: dict[str, str], tmp_path: Path) -> None:
    names: list[str] = []
    database = Database(database_parameters, reactor=reactor, observe=lambda name, *_: names.append(name))
    database.start()
    try:
        store = MessageStore(database, reactor=reactor, run=maybeDeferred)
        records = [await record(PLAIN + str(n).encode(), tmp_path) for n in range(50)]
        assert await accept_all(store, records) == [r.id for r in records]
        assert await count(database, "relaymail.message") == 50
        assert names.count("messages.accept") <= 3
    finally:
        await database.stop()


async def test_one_bad_message_does_not_take_its_batch_with_it(
    store: MessageStore, database: Database, tmp_path: Path
) -> None:
    records = [await record(PLAIN + str(n).encode(), tmp_path) for n in range(20)]
    gone = uuid4()
    records[7] = await record(PLAIN, tmp_path, users={"gone@example.test": gone})
    records[11] = replace(records[11], summary=replace(records[11].summary, subject="x" * 2000))
    assert await accept_all(store, records) == [r.id for r in records]
    assert await count(database, "relaymail.message") == 20
    ((subject, status),) = await database.query(
        "test.subject", "SELECT subject, parse_status FROM relaymail.message WHERE id = %s", (records[11].id,)
    )
    assert (subject, status) == ("(No Subject)", "unstorable: 22001")
    assert await stored_bytes(database, records[11].id) == PLAIN + b"11"
    orphans = await database.query(
        "test.orphan", 'SELECT "UserId" FROM public."EmailRecipients" WHERE "Address" = \'gone@example.test\''
    )
    assert orphans == [(None,)]


async def test_a_resend_gets_the_first_id_and_is_stored_once(
    store: MessageStore, database: Database, tmp_path: Path
) -> None:
    first = await record(PLAIN, tmp_path, deduplicate=True)
    assert await store.accept(first) == first.id
    assert await store.accept(again(first)) == first.id
    both = [again(first), await record(PLAIN + b"other", tmp_path, deduplicate=True)]
    assert await accept_all(store, both) == [first.id, both[1].id]
    assert await count(database, "relaymail.message") == 2
    assert await count(database, 'public."Emails"') == 2


async def test_a_resend_in_the_same_batch_is_stored_once(
    store: MessageStore, database: Database, tmp_path: Path
) -> None:
    filler = await record(PLAIN + b"x", tmp_path)
    first = await record(PLAIN, tmp_path, deduplicate=True)
    ids = await accept_all(store, [filler, again(filler), first, again(first)])
    assert ids[2] == ids[3]
    assert await count(database, "relaymail.message") == 3


async def test_the_same_message_a_day_later_is_another_one(
    store: MessageStore, database: Database, tmp_path: Path
) -> None:
    first = await record(PLAIN, tmp_path, deduplicate=True)
    await store.accept(first)
    await database.execute(
        "test.age", "UPDATE relaymail.message SET received_at = now() - interval '25 hours'"
    )
    second = again(first)
    assert await store.accept(second) == second.id
    assert await count(database, "relaymail.message") == 2


async def test_without_deduplication_two_equal_messages_are_two(
    store: MessageStore, database: Database, tmp_path: Path
) -> None:
    first = await record(PLAIN, tmp_path)
    await store.accept(first)
    second = again(first)
    assert await store.accept(second) == second.id


async def test_a_spooled_message_and_its_attachments_come_back(
    store: MessageStore, database: Database, tmp_path: Path
) -> None:
    binary = bytes(range(256)) * 6000
    body = b"".join(
        b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=%d.bin\r\n\r\n" % n + _base64(binary[n:]) + b"\r\n"
        for n in range(2)
    )
    raw = (
        b"Subject: big\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        + body
        + b"--b--\r\n"
    )
    message = await record(raw, tmp_path, memory=1000)
    assert message.content.memory() is None
    await store.accept(message)
    assert await stored_bytes(database, message.id) == raw
    rows = await database.query(
        "test.attachments",
        'SELECT "FileName", "SizeBytes", "Content" FROM public."EmailAttachments" ORDER BY "FileName"',
    )
    assert [(name, size) for name, size, _ in rows] == [("0.bin", len(binary)), ("1.bin", len(binary) - 1)]
    assert [content for _, _, content in rows] == [binary, binary[1:]]


def _base64(data: bytes) -> bytes:
    import base64

    return base64.encodebytes(data).replace(b"\n", b"\r\n")


async def test_replies_are_threaded_with_what_the_same_users_have(
    store: MessageStore, database: Database, tmp_path: Path
) -> None:
    ann, bob = await add_user(database, "ann@x"), await add_user(database, "bob@x")
    reply = PLAIN.replace(b"<one@x>", b"<two@x>\r\nIn-Reply-To: <one@x>")
    await store.accept(await record(PLAIN, tmp_path, users={"ann@x": ann}))
    await store.accept(await record(reply, tmp_path, users={"ann@x": ann}))
    await store.accept(await record(reply, tmp_path, users={"bob@x": bob}))
    threads = await database.query(
        "test.threads",
        'SELECT r."UserId", e."MessageId", e."ThreadId" FROM public."Emails" e'
        ' JOIN public."EmailRecipients" r ON r."EmailId" = e."Id"',
    )
    found = {(user, message): thread for user, message, thread in threads}
    assert found[ann, "two@x"] == found[ann, "one@x"] is not None
    assert found[bob, "two@x"] not in (None, found[ann, "one@x"])


@pytest.fixture
def proxied(
    database_parameters: dict[str, str], tmp_path_factory: Any
) -> Iterator[tuple[Database, CuttingProxy]]:
    """A client behind a proxy that can lose the connection at a chosen point."""
    folder = tmp_path_factory.mktemp("p")
    proxy = CuttingProxy(reactor, Path(database_parameters["host"]), folder)
    client = Database({**database_parameters, "host": str(folder)}, reactor=reactor)
    client.start()
    run_on_reactor(client.ping())
    yield client, proxy
    run_on_reactor(client.stop())
    run_on_reactor(proxy.close())


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_commit_whose_answer_was_lost_is_settled_before_replying(
    proxied: tuple[Database, CuttingProxy], database: Database, tmp_path: Path, cut: str
) -> None:
    client, proxy = proxied
    store = MessageStore(client, reactor=reactor, run=maybeDeferred)
    setattr(proxy, f"cut_{cut}", b"COMMIT")
    records = [await record(PLAIN + str(n).encode(), tmp_path) for n in range(3)]
    assert await accept_all(store, records) == [r.id for r in records]
    assert proxy.cuts == 1
    assert await count(database, "relaymail.message") == 3
    assert await count(database, 'public."Emails"') == 3


async def test_a_connection_lost_before_the_commit_is_an_error_and_nothing_is_stored(
    proxied: tuple[Database, CuttingProxy], database: Database, tmp_path: Path
) -> None:
    client, proxy = proxied

    def cut(point: str) -> None:
        if point == "before-commit":
            for front in list(proxy.fronts):
                front.cut()

    store = MessageStore(client, reactor=reactor, run=maybeDeferred, crash=cut)
    with pytest.raises(DatabaseError):
        await store.accept(await record(PLAIN, tmp_path))
    assert await count(database, "relaymail.message") == 0


async def test_a_message_in_doubt_is_remembered_and_its_resend_is_not_a_second_one(
    proxied: tuple[Database, CuttingProxy], database: Database, tmp_path: Path
) -> None:
    client, proxy = proxied
    store = MessageStore(client, reactor=reactor, run=maybeDeferred, timeout=2.0)
    message = await record(PLAIN, tmp_path)
    proxy.silent_after = b"COMMIT"
    accepting = Deferred.fromCoroutine(store.accept(message))
    await until(reactor, lambda: any(front.silent for front in proxy.fronts))
    accepting.addTimeout(0, reactor)
    with pytest.raises(TimeoutError):
        await accepting
    assert await store.accept(again(message)) == message.id
    assert await count(database, "relaymail.message") == 1


async def test_without_a_database_the_error_says_so(tmp_path: Path) -> None:
    database = Database({"host": str(tmp_path)}, reactor=reactor, statement_timeout=0.2)
    database.start()
    try:
        store = MessageStore(database, reactor=reactor, run=maybeDeferred, timeout=0.2)
        with pytest.raises(DatabaseUnavailable):
            await store.accept(await record(PLAIN, tmp_path))
    finally:
        await database.stop()
