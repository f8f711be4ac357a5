"""Check of the API's key: does the API take it."""

from __future__ import annotations

from relaymail.doctor.api_probe import answer
from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, setting


async def look(context: Context) -> Finding:
    """The same notification for nobody."""
    given = context.settings.internal.api_key is not None
    got = await answer(context)
    if got.code in (401, 403):
        why = "Internal:ApiKey is not the one the API has" if given else "Internal:ApiKey is not set"
        return failed("The API refuses the key", f"HTTP {got.code}: {why}", code=got.code)
    if got.code is None or got.code >= 500 or got.code in (404, 405, 429) or 300 <= got.code < 400:
        raise Skipped("the API cannot be asked, see check.api.reachable")
    if not given:
        return passed("The API takes notifications without a key", f"HTTP {got.code}", code=got.code)
    return passed("The API takes the key", f"HTTP {got.code}", code=got.code)


CHECK = Check(
    "check.api.key",
    "API accepts the key",
    Severity.WARN,
    ("api", "secrets"),
    Page(
        what="Sends the API a notification that is for no user, with `Internal:ApiKey`. 401 and 403 mean "
        "that it does not "
        "take the key; any other answer to the notification itself means that it does.",
        why="With a key that is refused no user is told of new mail. Notifications are tried again, slowly, "
        "for 72 hours.",
        causes=(
            "The key was changed in the API's settings and not here",
            "The secret was not mounted, so that no key is sent",
            "Quotes or blanks around the key in a file of variables",
        ),
        fix=setting(private="Internal__ApiKey=…", comment="the same key as in the settings of the API"),
        verify="relaymail outbox retry --all-pending\nrelaymail outbox list --limit 5",
        related=("check.api.reachable", "check.mail.outbox-dead"),
    ),
    look,
    limit=12.0,
)
