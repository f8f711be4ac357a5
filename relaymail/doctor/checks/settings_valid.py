"""Check of the settings: can they be read, do they fit together."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy, inside
from relaymail.settings import SettingsError, require_database

SHOW = inside("relaymail config show")


async def look(context: Context) -> Finding:
    """Everything that is wrong, and everything that is odd."""
    errors = list(context.examined.errors)
    warnings = context.examined.loaded.warnings
    unread = any(error.startswith("The settings file") for error in errors)
    if not unread and not any("DefaultConnection" in error for error in errors):
        # Where it could not be read nobody can say that it is missing
        try:
            require_database(context.settings)
        except SettingsError as error:
            errors.append(str(error))
    if errors:
        count = "1 setting is wrong" if len(errors) == 1 else f"{len(errors)} settings are wrong"
        rest = "the other checks go by the defaults in their place"
        return failed(f"{count}; {rest}", *errors, *warnings, errors=errors, warnings=warnings)
    if warnings:
        return failed(
            "The settings can be used, but some have no effect",
            *warnings,
            severity=Severity.WARN,
            warnings=warnings,
        )
    return passed("The settings are sound")


CHECK = Check(
    "check.settings.valid",
    "Settings can be read and fit together",
    Severity.ERROR,
    ("settings",),
    Page(
        what="Reads the settings as the host would: the file given with `--config` and the environment. "
        "Fails for "
        "values that are not allowed, settings that contradict each other, misspelt keys, and where no "
        "database "
        "is named. Keys that have no effect are a warning.",
        why="The host refuses to start with wrong settings, with exit code 78. A key that has no effect is "
        "often "
        "a misspelt one, and what was meant by it does not happen.",
        causes=(
            "A typing error in a key or a value; the message names the key and what is allowed",
            "`Smtp:Mx:Enabled` without `Smtp:Mx:HostedDomains`",
            "A secret that was not mounted, so that `ConnectionStrings:DefaultConnection` is empty",
            "A list given as one value: `Smtp__Mx__HostedDomains__0=example.com` is right",
            "The doctor was not given the `--config` and the environment of the host",
        ),
        fix=Remedy(
            "# mend the variable that the message names, in\n${EDITOR:-vi} relaymail.env\n"
            "docker compose up -d relaymail",
            "# mend the key that the message names, in one of\n"
            "${EDITOR:-vi} /etc/relaymail/settings.json /etc/relaymail/environment\nsystemctl restart "
            "relaymail",
            "# mend the variable that the message names\nkubectl edit deployment/relaymail\n"
            "# or, with Helm\nhelm get values relaymail > values.yaml && ${EDITOR:-vi} values.yaml",
        ),
        verify=SHOW.systemd,
        related=("check.database.reachable", "check.ports.listeners"),
    ),
    look,
)
