"""The entrance: ``twistd relaymail``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from twisted.python import usage

from relaymail.host import Host
from relaymail.process import EX_CONFIG, refuse
from relaymail.settings import SettingsError, load, require_database


class Options(usage.Options):
    """What ``twistd relaymail --help`` shows."""

    longdesc = (
        "An SMTP host: takes mail on submission, SMTPS and MX, stores it in PostgreSQL and notifies an HTTP"
        " API. Settings come from --config FILE and from the environment (Section__Key); see"
        " `relaymail config show`."
    )
    optFlags = [  # noqa: RUF012 - as twisted.python.usage wants it
        ["demo", None, "Run with an embedded PostgreSQL, a development certificate and a demo user."],
    ]
    optParameters = [  # noqa: RUF012
        ["config", "c", None, "JSON file with settings."],
        ["data", None, None, "Folder for the embedded PostgreSQL, certificate and spool (Data:Directory)."],
    ]

    log: TextIO | None = sys.stdout
    """Where log lines go; ``None`` leaves it to twistd."""

    def postOptions(self) -> None:
        """No pid file unless asked for: a second host in one folder, or a pid 1, would trip over it."""
        if self.parent is not None and self.parent["pidfile"] == "twistd.pid":
            self.parent["pidfile"] = ""
        self.log = _log_stream(self.parent or {})


def _log_stream(twistd: Mapping[str, Any]) -> TextIO | None:
    """Our lines go where twistd was told to log: standard output, or the file of ``--logfile``."""
    path = twistd.get("logfile")
    if twistd.get("syslog") or (path == "-" and not twistd.get("nodaemon")):
        return None
    if path == "-" or (twistd.get("nodaemon") and not path):
        return sys.stdout
    try:
        return open(path or "twistd.log", "a", encoding="utf-8")
    except OSError as error:
        refuse(f"--logfile: cannot write {path or 'twistd.log'}: {error.strerror}", EX_CONFIG)


def makeService(options: Options) -> Host:
    """The host, for twistd. Exits with 78 and a sentence where a setting is wrong."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    # The wall clock can be set back, and then no timer fires; or forward, and every client times out
    reactor.seconds = time.monotonic
    config, data = options["config"], options["data"]
    demo = bool(options["demo"])
    try:
        loaded = load(
            Path(config) if config else None, os.environ, demo=demo, data=Path(data) if data else None
        )
        require_database(loaded.settings)
    except SettingsError as error:
        refuse(str(error), EX_CONFIG)
    return Host(loaded, reactor, demo_run=demo, log_stream=options.log)
