"""Stores the whole corpus once, as the host would, and reads back the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from relaymail.message.record import Record
from relaymail.store.database import Database
from relaymail.store.messages import MessageStore
from tests.conftest import reactor, run_on_reactor
from tests.corpus.cases import BOB, small
from tests.corpus.large import LARGE
from tests.store.records import record
from tests.support.postgres import PostgresServer

BATCH = 60
"""Messages that are stored side by side."""

Row = dict[str, Any]


class Stored:
    """Everything that was stored, and reading it."""

    def __init__(self, database: Database, bob: UUID, records: dict[str, Record]) -> None:
        self._database = database
        self.bob = bob
        self.records = records

    def rows(self, table: str, column: str, value: UUID, order: str = "1") -> list[Row]:
        """The rows of ``table`` where ``column`` has ``value``, by column name; all columns there are."""
        return run_on_reactor(self._rows(table, column, value, order))  # type: ignore[no-any-return]

    async def _rows(self, table: str, column: str, value: UUID, order: str) -> list[Row]:
        schema, _, name = table.partition(".")
        if table not in _COLUMNS:
            _COLUMNS[table] = [
                found
                for (found,) in await self._database.query(
                    "test.columns",
                    "SELECT column_name::text FROM information_schema.columns"
                    " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
                    (schema, name.strip('"')),
                )
            ]
        names = _COLUMNS[table]
        selected = ", ".join(f'"{each}"' for each in names)
        rows = await self._database.query(
            "test.rows", f"SELECT {selected} FROM {table} WHERE {column} = %s ORDER BY {order}", (value,)
        )
        return [dict(zip(names, row, strict=True)) for row in rows]


_COLUMNS: dict[str, list[str]] = {}


@pytest.fixture(scope="session")
def stored(
    postgres: PostgresServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stored]:
    """The corpus in a database of its own."""
    name = postgres.new_database(migrated_template)
    database = Database(postgres.parameters(name), reactor=reactor)
    folder = tmp_path_factory.mktemp("spool")

    async def store_all() -> Stored:
        database.start()
        await database.ping()
        bob = uuid4()
        await database.execute(
            "test.user",
            'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt")'
            " VALUES (%s, %s, 'test', %s, now())",
            (bob, str(bob), BOB),
        )
        return Stored(database, bob, await _store(database, bob, folder))

    yield run_on_reactor(store_all(), limit=900.0)
    run_on_reactor(database.stop())
    postgres.drop_database(name)


async def _store(database: Database, bob: UUID, folder: Path) -> dict[str, Record]:
    store = MessageStore(database, reactor=reactor, run=deferToThread)
    records: dict[str, Record] = {}
    files, made = small(), LARGE
    for cases, together in ((files, BATCH), (made, 1)):
        names = list(cases)
        for at in range(0, len(names), together):
            batch = {
                name: await record(cases[name]().raw, folder, users={BOB: bob})
                for name in names[at : at + together]
            }
            accepted = await gatherResults(
                [Deferred.fromCoroutine(store.accept(each)) for each in batch.values()], consumeErrors=True
            )
            assert accepted == [each.id for each in batch.values()]
            for each in batch.values():
                each.content.close()  # type: ignore[attr-defined]
            records.update(batch)
    return records
