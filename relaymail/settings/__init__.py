"""Settings: what they are, and how they are read. No other room reads the environment."""

from relaymail.settings.checks import require_database
from relaymail.settings.connection_string import ConnectionString
from relaymail.settings.errors import SettingsError
from relaymail.settings.load import Entry, Examined, Loaded, describe, examine, load
from relaymail.settings.model import Settings
from relaymail.settings.secret import Secret
from relaymail.settings.sending import own_name, why_off

__all__ = [
    "ConnectionString",
    "Entry",
    "Examined",
    "Loaded",
    "Secret",
    "Settings",
    "SettingsError",
    "describe",
    "examine",
    "load",
    "own_name",
    "require_database",
    "why_off",
]
