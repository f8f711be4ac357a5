"""What ``--demo`` adds: a user, a key, and three commands to try the host with."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Final

from relaymail.settings import Settings
from relaymail.store.administration import AccountError, Administration
from relaymail.store.database import Database

DEMO_USER: Final = "demo@example.test"
KEY_FILE: Final = "demo-key"


async def demo_key(database: Database, folder: Path) -> str:
    """Make the demo user if there is none, and return a key of theirs: the one handed out before, if it still
    works."""
    administration = Administration(database)
    try:
        user = await administration.find_user(DEMO_USER)
    except AccountError:
        user = await administration.create_user(DEMO_USER, "Demo user")
    file = folder / KEY_FILE
    live = {key.prefix for key in await administration.list_keys(user) if key.revoked_at is None}
    known = file.read_text().strip() if file.exists() else ""
    if known and known[:12] in live:
        return known
    secret = (await administration.create_key(user, "demo", ["smtp"])).key
    file.touch(mode=0o600)
    file.write_text(secret + "\n")
    return secret


def banner(settings: Settings, key: str, certificate: Path | None) -> str:
    """What is printed once the demo takes mail: where it listens, how to log in, and what to paste."""
    smtp = settings.smtp
    folder = settings.data.directory.resolve()
    python = shlex.quote(sys.executable)
    # Double quotes in the code, so that the shell's single quotes around it stay readable
    trusted = f"cafile={json.dumps(str(certificate))}" if certificate else ""
    submit = (
        "import smtplib, ssl; "
        f's = smtplib.SMTP("localhost", {smtp.port}); '
        f"s.starttls(context=ssl.create_default_context({trusted})); "
        f's.login("{DEMO_USER}", "{key}"); '
        f's.sendmail("{DEMO_USER}", ["{DEMO_USER}"], '
        f'"From: {DEMO_USER}\\nTo: {DEMO_USER}\\nSubject: Over submission\\n\\nHello\\n"); s.quit()'
    )
    deliver = (
        "import smtplib; "
        f's = smtplib.SMTP("localhost", {smtp.mx.port}); '
        f's.sendmail("friend@example.org", ["{DEMO_USER}"], '
        f'"From: friend@example.org\\nTo: {DEMO_USER}\\nSubject: Over MX\\n\\nHello\\n"); s.quit()'
    )
    show = f"{python} -m relaymail.cli --demo --data {shlex.quote(str(folder))} message list"
    return "\n".join(
        [
            "",
            f"relaymail is running: submission on {smtp.port}, SMTPS on {smtp.secure_port}, MX for"
            f" {', '.join(smtp.mx.hosted_domains)} on {smtp.mx.port},"
            f" health on {settings.health_check.url}/healthz",
            f"User {DEMO_USER}, API key {key}",
            "",
            "Send a message over submission:",
            f"  {python} -c {shlex.quote(submit)}",
            "Send one over MX:",
            f"  {python} -c {shlex.quote(deliver)}",
            "Show what was stored:",
            f"  {show}",
            "",
            "Ctrl-C stops it; started again it goes on with the same data.",
            "",
        ]
    )
