"""The host's data folder on disk: what is where, who may use it, and the lock that keeps a second host out.

Everything here touches the disk and is called in a thread, or is one small file.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relaymail.store.embedded.cluster import PORT
from relaymail.store.embedded.errors import EmbeddedPostgresBusy, EmbeddedPostgresError
from relaymail.store.embedded.identity import Identity

SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path (``sun_path`` of unix(7), without its NUL)."""

LOG_LIMIT = 4 * 1024 * 1024
"""Bytes of the log above which a start begins a new one; the old one is kept as ``postgres.log.1``."""

_COMPLAINTS = ("FATAL:", "PANIC:", "DETAIL:", "HINT:", "error:")

HOST = "host"
COMMAND = "command"
"""Who holds the lock: a host, for as long as it runs, or a command of the CLI, which ends soon."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The places in one data folder."""

    root: Path

    @property
    def data(self) -> Path:
        """PostgreSQL's own data folder."""
        return self.root / "postgres"

    @property
    def has_data(self) -> bool:
        """Whether a database was made here."""
        return (self.data / "PG_VERSION").exists()

    @property
    def touched(self) -> bool:
        """Whether a database was made here, or somebody may be making one."""
        return self.has_data or self.lock.exists()

    @property
    def log(self) -> Path:
        """What PostgreSQL has to say."""
        return self.root / "postgres.log"

    @property
    def lock(self) -> Path:
        """Held by whoever runs PostgreSQL here."""
        return self.root / "relaymail.lock"

    def sockets(self, identity: Identity) -> Path:
        """The folder of the socket: in here, or a plain one in ``/tmp`` where this path would not do.

        It may be too long, or hold what separates hosts for libpq or lines in ``postmaster.pid``.
        """
        folder = self.root / "run"
        short = len(os.fsencode(folder / f".s.PGSQL.{PORT}.lock")) <= SOCKET_PATH_LIMIT
        if short and not set(str(folder)) & set(",\r\n"):
            return folder
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(f"/tmp/relaymail-{identity.uid}-{digest}")  # noqa: S108  (owner and mode are verified)


@contextmanager
def explained(action: str) -> Iterator[None]:
    """Turn a fault of the file system into a sentence that begins with ``action``."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: " Make room on that disk.",
            errno.EDQUOT: " The account's quota is used up.",
            errno.EROFS: " Choose a folder that can be written with --data or Data:Directory.",
            errno.EACCES: " Give the account the folder, or choose another with --data or Data:Directory.",
            errno.EPERM: " Give the account the folder, or choose another with --data or Data:Directory.",
        }.get(error.errno or 0, "")
        where = f" ({error.filename})" if error.filename else ""
        raise EmbeddedPostgresError(f"{action}: {error.strerror}{where}.{advice}") from error


def make_root(directory: Path) -> Folder:
    """The folder, made (0700) if it is not there.

    :raises EmbeddedPostgresError: it cannot be made.
    """
    with explained(f"The data folder {directory} cannot be made"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Folder(directory.resolve())


class FolderLock:
    """An advisory lock (flock(2)) that ends with the process that holds it, however that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Folder, kind: str) -> FolderLock:
        """Lock, and leave our pid and ``kind`` in the file.

        :raises EmbeddedPostgresBusy: another process holds it.
        :raises EmbeddedPostgresError: the file cannot be written.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with explained(f"The data folder {folder.root} cannot be locked"):
            descriptor = os.open(folder.lock, flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} {kind}\n".encode())
            except BlockingIOError:
                os.close(descriptor)
                pid, holder = read_holder(folder)
                raise EmbeddedPostgresBusy(
                    f"The data folder {folder.root} is in use by process {pid}. Stop that one first, or "
                    "choose another folder with --data or Data:Directory.",
                    holder,
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
        return cls(descriptor)

    def release(self) -> None:
        """Let the next one in. The file stays: removing it would let two hold two different ones."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def read_holder(folder: Folder) -> tuple[str, str]:
    """The pid and the kind in the lock file, as text; ``?`` and a host where they cannot be read."""
    try:
        pid, kind = folder.lock.read_text().split()
    except (OSError, ValueError):
        return "?", HOST
    return pid, kind


def new_data(folder: Folder, identity: Identity) -> Path | None:
    """An empty folder to make the data in, beside their final place; None if the data are there.

    What a first start that was killed has left is removed.

    :raises EmbeddedPostgresError: their place is taken by something else, or nothing can be written.
    """
    with explained(f"The database cannot be made in {folder.root}"):
        for leftover in folder.root.glob("postgres.new-*"):
            # An initdb whose host was killed may still be writing there: then the next start removes it
            shutil.rmtree(leftover, ignore_errors=True)
        if folder.has_data:
            _own(folder.data, identity)
            return None
        if folder.data.exists() and any(folder.data.iterdir()):
            raise EmbeddedPostgresError(
                f"{folder.data} is not empty and no PostgreSQL data folder. Move it away, or choose another "
                "folder with --data or Data:Directory."
            )
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=folder.root))
        _own(fresh, identity)
        return fresh


def finish_data(folder: Folder, fresh: Path) -> None:
    """Put the complete, synced data in their place: from now on they count."""
    with explained(f"The database cannot be made in {folder.root}"):
        os.rename(fresh, folder.data)
        descriptor = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _own(data: Path, identity: Identity) -> None:
    """Give a tree to ``identity``, where it is not theirs; only root ever has to."""
    if not identity.differs or data.stat().st_uid == identity.uid:
        return
    for place, folders, files in os.walk(data, topdown=False):
        for name in (*folders, *files):
            os.lchown(os.path.join(place, name), identity.uid, identity.gid)
    os.lchown(data, identity.uid, identity.gid)


def make_sockets(folder: Folder, identity: Identity) -> Path:
    """The socket's folder, for ``identity`` alone, without what a killed server has left in it.

    :raises EmbeddedPostgresError: somebody else has put something there, or it cannot be made.
    """
    sockets = folder.sockets(identity)
    with explained(f"The socket's folder {sockets} cannot be made"):
        try:
            sockets.mkdir(mode=0o700)
            if identity.differs:
                os.lchown(sockets, identity.uid, identity.gid)
        except FileExistsError:
            pass
        found = sockets.lstat()
        if sockets.parent == folder.root and stat.S_ISDIR(found.st_mode):
            # In our own folder nobody else has made it; the account may be another than last time
            if found.st_uid != identity.uid:
                os.lchown(sockets, identity.uid, identity.gid)
            os.chmod(sockets, 0o700)
        elif not stat.S_ISDIR(found.st_mode) or found.st_uid != identity.uid or found.st_mode & 0o077:
            raise EmbeddedPostgresError(
                f"{sockets} is needed for PostgreSQL's socket, but it is not a folder that belongs to uid "
                f"{identity.uid} alone. Remove it."
            )
        for leftover in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            (sockets / leftover).unlink(missing_ok=True)
    return sockets


def remove_sockets(folder: Folder, sockets: Path) -> None:
    """Leave nothing of ours in ``/tmp``; the folder in our own stays."""
    if sockets.parent != folder.root:
        try:
            sockets.rmdir()
        except OSError:
            # Somebody's psql may still have its socket there; the next start takes the folder as it is
            pass


def discard(fresh: Path) -> None:
    """Give back the room of data that could not be completed."""
    shutil.rmtree(fresh, ignore_errors=True)


def open_log(folder: Folder) -> int:
    """A descriptor to write the log with, after the old one was put aside if it had grown large."""
    with explained(f"The log {folder.log} cannot be written"):
        try:
            if folder.log.stat().st_size > LOG_LIMIT:
                folder.log.rename(folder.log.with_name("postgres.log.1"))
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(folder.log, flags, 0o600)


def end_of_log(folder: Folder, start: int) -> str:
    """The log's last complaint since byte ``start``, on one line; the last line if there was none."""
    try:
        with folder.log.open("rb") as log:
            log.seek(max(start, log.seek(0, os.SEEK_END) - 8192))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    told = [line[line.index(mark) :] for line in lines for mark in _COMPLAINTS if mark in line]
    return " ".join(line.strip() for line in (told or lines[-1:])[-3:])
