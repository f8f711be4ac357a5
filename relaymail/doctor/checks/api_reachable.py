"""Check of the API: does it answer."""

from __future__ import annotations

from relaymail.doctor.api_probe import answer
from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy, setting
from relaymail.notify.endpoint import PATH


async def look(context: Context) -> Finding:
    """Send a notification that is for nobody."""
    where = context.settings.api.base_url
    got = await answer(context)
    if got.code is None:
        return failed(f"The API at {where} does not answer", got.reason)
    if got.code in (404, 405) or 300 <= got.code < 400:
        return failed(
            f"{where} answers, but is not the API",
            f"{got.reason} for {PATH}",
            code=got.code,
        )
    if got.code >= 500 or got.code == 429:
        return failed(f"The API at {where} answers with an error", got.reason, code=got.code)
    return passed(f"The API at {where} answers", got.reason, code=got.code)


CHECK = Check(
    "check.api.reachable",
    "API answers",
    Severity.WARN,
    ("api", "connectivity"),
    Page(
        what="Sends the API a notification of new mail that is for no user, as the host would. Fails where "
        "nothing "
        "answers, where it is not the API, and where the API answers with an error.",
        why="The API tells mail programs and browsers of new mail. Mail is stored without it, and seen "
        "later; "
        "notifications wait, and are given up after 72 hours.",
        causes=(
            "`Api:BaseUrl` names another host or port, or has a path too many",
            "The API is stopped, or not on the same network",
            "A proxy in front of the API redirects to https: name that URL",
            "The API's own database is away",
        ),
        fix=setting("Api__BaseUrl=http://api:8080")
        + Remedy(
            "docker compose up -d api && docker compose logs --tail 50 api",
            "systemctl status relate-api",
            "kubectl get pods,svc -l app=api",
        ),
        verify="curl -si -X POST http://localhost:5000/api/internal/notifications/new-email | head -1   # "
        "401",
        related=("check.api.key", "check.mail.outbox-dead", "check.mail.outbox-due"),
    ),
    look,
    limit=12.0,
)
