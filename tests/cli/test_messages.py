"""``relaymail message``."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

from relaymail.store.database import Database
from tests.accounts.messages import TRACE, store_message
from tests.cli.conftest import Command
from tests.conftest import run_on_reactor

FIRST = UUID("01890000-0000-7000-8000-000000000001")
SECOND = UUID("01890000-0001-7000-8000-000000000002")

NASTY = [
    b"\xff\xfe\0\x80.\r\n..\r\n",
    bytes(range(256)) * 1024,
    b"\r\r\n\n\x1a\x04",
    b"no newline at the end",
]


def test_messages_are_listed_newest_first(relaymail: Command, database: Database) -> None:
    for message_id, subject in ((FIRST, "first"), (SECOND, "second")):
        run_on_reactor(
            store_message(database, [b"x"], message_id=message_id, subject=subject, recipients=["a@b.test"])
        )
    listed = relaymail.json("message", "list")
    assert [(m["id"], m["subject"]) for m in listed] == [(str(SECOND), "second"), (str(FIRST), "first")]
    assert listed[0]["recipients"] == ["a@b.test"]
    assert len(relaymail.json("message", "list", "--limit", "1")) == 1
    assert relaymail.json("message", "list", "--before", str(SECOND)) == listed[1:]


def test_without_messages_the_list_is_empty(relaymail: Command) -> None:
    assert relaymail.json("message", "list") == []
    done = relaymail("message", "list")
    assert (done.stdout, done.stderr) == (b"", b"There are no messages.\n")


def test_strangers_cannot_write_to_the_terminal(relaymail: Command, database: Database) -> None:
    subject = "a\x1b[2Jb\u202ec\x9bd\ue000é日\n"
    run_on_reactor(store_message(database, [b"x"], message_id=FIRST, subject=subject))
    for shown in (relaymail.text("message", "list"), relaymail.text("message", "show", str(FIRST))):
        assert "a\\x1b[2Jb\\u202ec\\x9bd\\ue000é日\\n" in shown
        assert all(c.isprintable() or c == "\n" for c in shown)
    assert relaymail.json("message", "show", str(FIRST))["subject"] == subject


def test_an_export_is_the_message_byte_for_byte(relaymail: Command, database: Database) -> None:
    run_on_reactor(store_message(database, NASTY, message_id=FIRST))
    assert relaymail("message", "export", str(FIRST)).stdout == b"".join(NASTY)
    assert relaymail("message", "export", "01890000").stdout == b"".join(NASTY)
    target = relaymail.folder / "message.eml"
    done = relaymail.json("message", "export", str(FIRST), "--output", str(target))
    assert done == {"id": str(FIRST), "file": str(target), "size_bytes": len(b"".join(NASTY))}
    assert target.read_bytes() == b"".join(NASTY)


def test_the_delivered_form_is_exported_too(relaymail: Command, database: Database) -> None:
    raw = b"From: a@b.test\nBcc: c@d.test\n\nHello\n"
    run_on_reactor(store_message(database, [raw], message_id=FIRST, listener="submission"))
    done = relaymail("message", "export", str(FIRST), "--delivered").stdout
    assert done.startswith(TRACE + b"Message-ID: <m1@sender.test>\r\nDate: ")
    assert done.endswith(b"\r\nFrom: a@b.test\r\n\r\nHello\r\n")
    target = relaymail.folder / "message.eml"
    report = relaymail.json("message", "export", "--delivered", str(FIRST), "--output", str(target))
    assert (report["size_bytes"], target.read_bytes()) == (len(done), done)
    assert relaymail("message", "export", str(FIRST)).stdout == raw


def test_an_export_that_cannot_be_written_is_an_error(relaymail: Command, database: Database) -> None:
    run_on_reactor(store_message(database, [b"x"], message_id=FIRST))
    assert "nowhere" in relaymail.error("message", "export", str(FIRST), "-o", "nowhere/message.eml")


def test_an_export_of_nothing_leaves_no_file(relaymail: Command) -> None:
    target = relaymail.folder / "message.eml"
    assert "no message" in relaymail.error("message", "export", str(FIRST), "-o", str(target))
    assert not target.exists()
    assert "is no message id" in relaymail.error("message", "export", "x")
    assert "--output" in relaymail.error("message", "export", str(FIRST), "--json", code=2)


def test_a_reader_that_leaves_early_is_met_with_silence(relaymail: Command, database: Database) -> None:
    run_on_reactor(store_message(database, [b"x" * 1_000_000] * 3, message_id=FIRST))
    process = subprocess.Popen(
        [sys.executable, "-m", "relaymail.cli", "message", "export", str(FIRST)],
        env=dict(relaymail.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    process.wait(60)
    assert complaint == b""


def test_lost_bytes_are_not_passed_off_as_the_message(relaymail: Command, database: Database) -> None:
    run_on_reactor(store_message(database, [b"one", b"two"], message_id=FIRST))
    run_on_reactor(database.execute("test.lose", "DELETE FROM relaymail.message_part WHERE n = 1"))
    done = relaymail("message", "export", str(FIRST), code=1)
    assert b"not stored as it was received" in done.stderr


def test_a_message_is_shown_with_what_became_of_it(relaymail: Command, database: Database) -> None:
    email = UUID("a3bb189e-8bf9-4c7e-9f5e-1d5c7f2b8a11")
    run_on_reactor(
        store_message(database, [b"x"], message_id=FIRST, recipients=["a@b.test"], email_ids=[email])
    )
    run_on_reactor(
        database.execute(
            "test.outbox",
            "INSERT INTO relaymail.outbox (message_id, email_id, payload) VALUES (%s, %s, '{}')",
            (FIRST, email),
        )
    )
    shown = relaymail.json("message", "show", "0189000000007")
    assert shown["id"] == str(FIRST)
    assert shown["recipients"] == [{"address": "a@b.test", "user_id": None, "parameters": None}]
    assert shown["outbox"][0]["state"] == "pending"
    assert shown["email_ids"] == [str(email)]
    text = relaymail.text("message", "show", str(FIRST))
    for expected in ("client address", "192.0.2.1", "Recipients", "a@b.test", "Notifications", "pending"):
        assert expected in text
