"""What is kept of a message under which id."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from msgspec.structs import replace

from tests.store.records import record


async def test_a_message_under_its_first_id_names_no_other(tmp_path: Path) -> None:
    second = await record(b"Subject: x\r\n\r\ntext\r\n", tmp_path)
    second = replace(
        second,
        trace_headers=f"Received: from x\r\n\tid {second.id};\r\n\tnow\r\n".encode(),
        header_message_id=f"{second.id}@mx.example.test",
    )
    first = uuid4()
    stored = second.under(first)
    assert stored.id == first
    assert stored.trace_headers == f"Received: from x\r\n\tid {first};\r\n\tnow\r\n".encode()
    assert stored.header_message_id == f"{first}@mx.example.test"
    assert stored.fingerprint == second.fingerprint
