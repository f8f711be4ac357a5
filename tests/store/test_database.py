"""The database client against a real server."""

from __future__ import annotations

import uuid

from relaymail.store.database import Database


async def test_values_come_back_as_python_types(database: Database) -> None:
    key = uuid.uuid4()
    rows = await database.query(
        "test.types",
        "SELECT %s::uuid, %s::bytea, %s::uuid[], '{\"a\": 1}'::json, now() > 'epoch'",
        (key, b"\0\xff\\x", [key]),
    )
    assert rows == [(key, b"\0\xff\\x", [key], {"a": 1}, True)]
