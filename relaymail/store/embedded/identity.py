"""As whom the embedded PostgreSQL runs, and how a command is started so that it can reach its files.

PostgreSQL refuses to run as root. A host that is root therefore runs it as an unprivileged account. That
account may be unable to walk to the binaries or to the data folder (``/root`` and what ``mktemp -d`` makes
are closed to others); instead of opening the modes of folders that are not ours, the process then gets the
one capability it lacks: ``CAP_DAC_READ_SEARCH`` to search folders, or ``CAP_DAC_OVERRIDE`` where a container
withholds that one or the programs may be run by their owner only.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from relaymail.store.embedded.errors import EmbeddedPostgresError

ACCOUNTS = ("postgres", "nobody")
"""Accounts tried in this order when the host is root and there is no data yet."""

_LAUNCHER = Path(__file__).with_name("launch.py")
_DAC_READ_SEARCH = ("dac_read_search", 2)
_DAC_OVERRIDE = ("dac_override", 1)
_SETPCAP = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and group the server runs as."""

    uid: int
    gid: int

    @property
    def differs(self) -> bool:
        """Whether it is another one than ours."""
        return self.uid != os.geteuid()


def choose_identity(data: Path) -> Identity:
    """Ourselves; if we are root: the owner of the data that is there, else the first of :data:`ACCOUNTS`.

    :raises EmbeddedPostgresError: we are root and there is no such account.
    """
    if os.geteuid() != 0:
        return Identity(os.geteuid(), os.getegid())
    if data.is_dir():
        owner = data.stat()
        if owner.st_uid != 0:
            return Identity(owner.st_uid, owner.st_gid)
    for name in ACCOUNTS:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return Identity(account.pw_uid, account.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and there is no account "
        f"{' or '.join(ACCOUNTS)} to run it as. Start relaymail as an ordinary user."
    )


def command(identity: Identity, program: Sequence[str], reach: Sequence[Path]) -> list[str]:
    """The whole command line that starts ``program`` as ``identity`` in a session of its own.

    :param reach: files and folders it must be able to get to.
    :raises EmbeddedPostgresError: it cannot, and we cannot give it the capability.
    """
    launch = [sys.executable, "-I", "-S", str(_LAUNCHER)]
    if not identity.differs:
        return [*launch, *program]
    account = [f"--reuid={identity.uid}", f"--regid={identity.gid}", "--clear-groups"]
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin")
    barriers = [found for path in reach for found in _barriers(path, identity)]
    if not barriers:
        return [*launch, f"--as={identity.uid}:{identity.gid}", *program]
    ours = _effective_capabilities()
    # A program that may not be run needs more than a folder that may not be searched
    only_folders = all(barrier.is_dir() for barrier in barriers)
    candidates = (_DAC_READ_SEARCH, _DAC_OVERRIDE) if only_folders else (_DAC_OVERRIDE,)
    for name, bit in candidates:
        if setpriv is not None and ours >> bit & 1:
            only = f"-all,+{name}"
            limits = [f"--inh-caps={only}", f"--ambient-caps={only}"]
            if ours >> _SETPCAP & 1:
                # initdb asks access(2) for its own programs, which forgets capabilities but for this bit
                limits += [f"--bounding-set={only}", "--securebits=+no_setuid_fixup"]
            return [*launch, setpriv, *account, *limits, "--", *program]
    raise EmbeddedPostgresError(
        f"PostgreSQL, which does not run as root, runs as uid {identity.uid}, and that one "
        f"cannot get through {barriers[0]}. Use folders open to all (chmod o+x {barriers[0]}), "
        "install setpriv (util-linux), or start relaymail as an ordinary user."
    )


def _barriers(path: Path, identity: Identity) -> Iterator[Path]:
    """The folders on the way to ``path``, and the program there, that ``identity`` has no x bit for."""
    real = path.resolve()
    for folder in (*reversed(real.parents), real):
        found = folder.stat()
        if found.st_uid == identity.uid:
            needed = stat.S_IXUSR
        elif found.st_gid == identity.gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not found.st_mode & needed:
            yield folder


def _effective_capabilities() -> int:
    """The process's effective capabilities as bits (capabilities(7)); all of them where unreadable."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return ~0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
