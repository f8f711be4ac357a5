"""Started as a program: makes its own session, drops to ``--as=UID:GID`` if given, and becomes the command.

A session of its own keeps the terminal's Ctrl-C away from PostgreSQL: the host stops it when its own work is
done.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> None:
    """Never returns."""
    os.setsid()
    if arguments[0].startswith("--as="):
        uid, gid = (int(part) for part in arguments.pop(0).removeprefix("--as=").split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o077)
    os.execv(arguments[0], arguments)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
