"""Check of the mailboxes: nobody has a message twice."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.store import diagnosis

_SQL = """\
DELETE FROM public."EmailRecipients" a USING public."EmailRecipients" b
WHERE a."EmailId" = b."EmailId" AND a."UserId" = b."UserId" AND a."Id" > b."Id";"""


async def look(context: Context) -> Finding:
    """Two recipient rows of one user in one row of ``Emails``."""
    twice = await context.ask(diagnosis.twice_in_a_mailbox)
    if twice.count:
        return failed(
            f"{twice.count} messages are in somebody's mailbox twice",
            *[f"Emails.Id {one}" for one in twice.examples],
            count=twice.count,
        )
    return passed("Nobody has a message twice")


CHECK = Check(
    "check.mail.mailboxes",
    "Nobody has a message twice",
    Severity.ERROR,
    ("database", "invariant"),
    Page(
        what=f"Looks through the newest {diagnosis.NEWEST} rows of `Emails` for two recipient rows of one "
        "user.",
        why="The IMAP host cannot open a mailbox in which a message is twice: its user sees no mail at all.",
        causes=(
            "Two addresses were given to the same user after mail for both had come: the API hands out both "
            "rows at "
            "the next login",
            "Rows were added by hand or by another program",
        ),
        fix=Remedy(
            f"docker compose exec -T db psql -U postgres relate <<'END'\n{_SQL}\nEND",
            f"sudo -u postgres psql relate <<'END'\n{_SQL}\nEND",
            f"kubectl exec -i statefulset/postgres -- psql -U postgres relate <<'END'\n{_SQL}\nEND",
        ),
        verify="",
        related=("check.accounts.addresses", "check.mail.recipients"),
    ),
    look,
    limit=25.0,
)
