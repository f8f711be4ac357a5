"""The commands that make a data folder and run a server on it, with settings for a small, durable one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

USER = "relaymail"
DATABASE = "relaymail"
PORT = 5432
"""Only part of the socket's name: the server opens no network port."""

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "40",
    "shared_buffers": "96MB",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_compression": "on",  # the wheel is built without lz4
    "max_wal_size": "512MB",
    "min_wal_size": "64MB",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "log_statement": "none",
    # A statement in the log could carry somebody's mail
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "jit": "off",
}
"""For some thousand messages per minute on a machine that has other things to do."""


def initdb_command(binaries: Path, data: Path) -> list[str]:
    """Makes a cluster in the empty or missing folder ``data``; nothing is synced to disk yet."""
    return [
        str(binaries / "initdb"),
        f"--pgdata={data}",
        f"--username={USER}",
        "--auth=trust",  # the socket's folder is 0700: who gets to it is let in
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--data-checksums",
        "--no-instructions",
        "--no-sync",
    ]


def sync_command(binaries: Path, data: Path) -> list[str]:
    """Writes what :func:`initdb_command` made through to the disk."""
    return [str(binaries / "initdb"), f"--pgdata={data}", "--sync-only"]


def server_command(
    binaries: Path, data: Path, sockets: Path, settings: Mapping[str, str] = SETTINGS
) -> list[str]:
    """Runs the server in the foreground, with its socket in the folder ``sockets``."""
    options = {**settings, "unix_socket_directories": _quoted_path(sockets), "port": str(PORT)}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return [str(binaries / "postgres"), "-D", str(data), *arguments]


def _quoted_path(path: Path) -> str:
    """A path for a setting that takes a list of them: a comma or blank in it separates nothing."""
    return '"' + str(path).replace('"', '""') + '"'
