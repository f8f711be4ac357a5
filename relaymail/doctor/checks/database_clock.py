"""Check of the clocks: do this machine and the database agree."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.store import diagnosis
from relaymail.store.database import Database

WARN_ABOVE = 2.0
ERROR_ABOVE = 60.0
"""Seconds."""

_SYNC = "timedatectl set-ntp true\nsystemctl restart systemd-timesyncd\ntimedatectl"


async def look(context: Context) -> Finding:
    """The difference, and how sure it is: half of the round trip."""

    async def compare(database: Database) -> tuple[float, float]:
        await diagnosis.clock(database)  # the first question pays for what is not ready yet
        before = context.now()
        theirs = await diagnosis.clock(database)
        after = context.now()
        return theirs.timestamp() - (before + after) / 2, (after - before) / 2

    skew, doubt = await context.ask(compare)
    off = max(0.0, abs(skew) - doubt)
    which = "ahead of" if skew > 0 else "behind"
    if off <= WARN_ABOVE:
        return passed("The clocks agree", skewSeconds=round(skew, 3))
    return failed(
        f"The database's clock is {abs(skew):.1f} s {which} this machine's",
        f"known to within {doubt:.3f} s",
        severity=Severity.ERROR if off > ERROR_ABOVE else Severity.WARN,
        skewSeconds=round(skew, 3),
    )


CHECK = Check(
    "check.database.clock",
    "Clocks of host and database agree",
    Severity.WARN,
    ("database", "system"),
    Page(
        what=f"Compares the time of this machine with that of the database. More than {WARN_ABOVE:g} s is a "
        "warning, "
        f"more than {ERROR_ABOVE:g} s an error.",
        why="Times of mail come from this machine (`Received:`, DKIM signatures, validity of certificates), "
        "those of "
        "the queue and the outbox from the database. Where they differ, mail is shown in the wrong order, "
        "signatures are not valid yet, and logs of the two cannot be compared.",
        causes=(
            "No time synchronisation on one of the machines",
            "A virtual machine that was suspended or restored",
        ),
        fix=Remedy(
            "# on the machines of both containers: they have the clock of their machine\n" + _SYNC,
            "# on this machine and on that of the database\n" + _SYNC,
            "# on the nodes of both pods: they have the clock of their node\nkubectl get pods -o wide\n"
            + _SYNC,
        ),
        verify='date -u +%T && psql "$(relaymail db url)" -Atc "SELECT clock_timestamp()"',
        related=("check.tls.expiry", "check.database.reachable"),
    ),
    look,
    limit=25.0,
)
