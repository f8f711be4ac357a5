"""Where DATA ends, and what is kept of it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread

from relaymail.smtp.content import SLICE, Content, DataReader, SpoolError
from tests.conftest import reactor
from tests.support.waiting import until

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"a", b"\0", b"\r\n.", b"..", b"text"]), max_size=30
)


def read(chunks: list[bytes]) -> tuple[bytes, bytes | None, DataReader]:
    """Feed chunks until the end of data."""
    reader = DataReader(64 * 1024)
    content, rest = b"", None
    for n, chunk in enumerate(chunks):
        text, rest = reader.feed(chunk)
        content += text
        if rest is not None:
            return content, rest + b"".join(chunks[n + 1 :]), reader
    return content, None, reader


def stuffed(text: bytes) -> bytes:
    """``text`` as a client sends it (RFC 5321 4.5.2); it must end with CRLF or be empty."""
    return (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


@given(PIECES, PIECES)
def test_what_was_stuffed_comes_back_and_what_follows_is_left(
    pieces: list[bytes], after: list[bytes]
) -> None:
    text = b"".join(pieces) + (b"\r\n" if pieces else b"")
    behind = b"".join(after)
    content, rest, _ = read([stuffed(text) + behind])
    assert content == text
    assert rest == behind


@given(PIECES, st.lists(st.integers(0, 100)))
def test_the_result_does_not_depend_on_how_bytes_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces) + b"\r\n.\r\nQUIT\r\n"
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    chunks = [data[a:b] for a, b in itertools.pairwise(places)]
    whole, cut = read([data]), read(chunks)
    assert cut[:2] == whole[:2]
    assert cut[2].bare_newline == whole[2].bare_newline
    single = read([data[n : n + 1] for n in range(len(data))])
    assert single[:2] == whole[:2]


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r.\r",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\r.\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n.\r\0\n",
    ],
)
def test_nothing_but_crlf_dot_crlf_ends_the_data(end: bytes) -> None:
    content, rest, _ = read([b"text" + end + b"more\r\n.\r\n"])
    assert rest == b""
    assert b"more" in content


def test_a_dot_right_behind_354_ends_an_empty_message() -> None:
    assert read([b".\r\n"])[:2] == (b"", b"")


def test_two_dots_on_the_first_line_are_one() -> None:
    assert read([b"..\r\n.\r\n"])[:2] == (b".\r\n", b"")


@pytest.mark.parametrize("text", [b"a\nb\r\n", b"a\rb\r\n", b"\n\r\n", b"a\r\r\n", b"a\n\r\n"])
def test_a_bare_newline_is_noticed(text: bytes) -> None:
    assert read([text + b".\r\n"])[2].bare_newline


@given(st.integers(60_000, 70_000), st.integers(50, SLICE))
def test_a_line_over_the_limit_is_noticed_however_it_is_cut(length: int, size: int) -> None:
    for letter in (b"x", b"."):
        data = stuffed(b"short\r\n" + letter * length + b"\r\n")
        reader = read([data[n : n + size] for n in range(0, len(data), size)])[2]
        assert reader.long_line == (length > 64 * 1024)


def test_a_small_limit_for_a_line_is_kept_too() -> None:
    reader = DataReader(100)
    reader.feed(b"x" * 90 + b"\r\n" + b"y" * 90 + b"\r\n.\r\n")
    assert not reader.long_line
    reader = DataReader(100)
    reader.feed(b"a\r\n" + b"y" * 110 + b"\r\nb\r\n.\r\n")
    assert reader.long_line


async def test_a_small_message_stays_in_memory(tmp_path: Path) -> None:
    content = Content(tmp_path, maybeDeferred, 1000)
    content.write(b"one")
    content.write(b"two")
    assert await content.finish() == hashlib.sha256(b"onetwo").digest()
    assert content.memory() == b"onetwo"
    assert list(content.parts(4)) == [b"onet", b"wo"]


async def test_a_large_message_goes_to_a_file_and_comes_back(tmp_path: Path) -> None:
    content = Content(tmp_path, maybeDeferred, 1000)
    pieces = [bytes([n]) * 700 for n in range(10)]
    for piece in pieces:
        content.write(piece)
    whole = b"".join(pieces)
    assert await content.finish() == hashlib.sha256(whole).digest()
    assert content.memory() is None
    assert content.size == len(whole)
    assert b"".join(content.parts(999)) == whole
    assert bytes(content.map()) == whole
    assert content.backlog == 0
    content.close()
    assert os.listdir(tmp_path) == []


def test_a_message_in_tiny_pieces_takes_no_more_memory_than_its_size_allows(tmp_path: Path) -> None:
    content = Content(tmp_path, maybeDeferred, 512 * 1024)
    tracemalloc.start()
    try:
        for n in range(100_000):
            content.write(b"%03d" % (n % 1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert content.memory() == b"".join(b"%03d" % n for n in range(1000)) * 100
    assert peak < 3 * content.size


async def test_the_sender_is_held_while_the_file_is_slow(tmp_path: Path) -> None:
    jobs: list[tuple[Deferred[Any], Any, Any]] = []

    def run(function: Any, *arguments: Any) -> Deferred[Any]:
        jobs.append((Deferred(), function, arguments))
        return jobs[-1][0]

    content = Content(tmp_path, run, 1000)
    assert content.write(b"x" * 1001) is not None
    assert content.write(b"x" * 500) is None
    held = content.write(b"x" * 600)
    assert held is not None
    released: list[object] = []
    held.addCallback(released.append)
    assert released == []
    done, function, arguments = jobs.pop()
    done.callback(function(*arguments))
    assert released == [None]
    content.close()


async def test_a_folder_that_is_gone_is_a_spool_error(tmp_path: Path) -> None:
    content = Content(tmp_path / "gone", maybeDeferred, 10)
    content.write(b"x" * 100)
    with pytest.raises(SpoolError):
        await content.finish()


def test_content_that_was_let_go_is_not_taken_for_empty(tmp_path: Path) -> None:
    content = Content(tmp_path, maybeDeferred)
    content.write(b"text")
    content.close()
    for use in (content.memory, content.map, lambda: next(content.parts(10))):
        with pytest.raises(SpoolError):
            use()


def open_files() -> set[int]:
    """The inodes of this process's open files."""
    inodes = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.stat(f"/proc/self/fd/{descriptor}").st_ino)
    return inodes


async def spooled(folder: Path, run: Callable[..., Deferred[Any]], text: bytes) -> Content:
    content = Content(folder, run, 10)
    content.write(text)
    await content.finish()
    assert content.spooled
    return content


async def test_two_who_read_a_spooled_message_do_not_disturb_each_other(tmp_path: Path) -> None:
    """The store tries again while a thread may still read for the try before."""
    content = await spooled(tmp_path, maybeDeferred, b"0123456789" * 3)
    first, second = content.parts(10), content.parts(15)
    assert next(first) == b"0123456789"
    assert b"".join(second) == b"0123456789" * 3
    assert b"".join(first) == b"0123456789" * 2
    content.close()


async def test_a_file_is_not_closed_under_a_thread_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor would be the next connection's, and the thread would read from that."""
    content = await spooled(tmp_path, deferToThread, b"0123456789" * 3)
    reading, go_on = threading.Event(), threading.Event()
    pread = os.pread

    def slow(descriptor: int, size: int, offset: int) -> bytes:
        reading.set()
        assert go_on.wait(60)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", slow)
    opened = os.fstat(content._file.fileno()).st_ino  # type: ignore[union-attr]
    part = deferToThread(next, content.parts(10))
    await deferToThread(reading.wait, 60)
    content.close()
    await deferToThread(lambda: None)
    assert opened in open_files()
    go_on.set()
    assert await part == b"0123456789"
    await until(reactor, lambda: opened not in open_files())
    with pytest.raises(SpoolError):
        await deferToThread(next, content.parts(10))


async def test_the_last_part_of_a_message_is_spooled_too(tmp_path: Path) -> None:
    content = Content(tmp_path, maybeDeferred, 10)
    content.write(b"x" * 11)
    content.write(b"y")
    assert await content.finish() == hashlib.sha256(b"x" * 11 + b"y").digest()
    assert b"".join(content.parts(5)) == b"x" * 11 + b"y"
    content.close()
